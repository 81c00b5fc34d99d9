// Schools and weeks have the same number by accident; schools separate, weeks follow each other.
data {
  int<lower=1> A; // schools
  int<lower=1> W; // weeks
  matrix[A, W] y;
}
parameters {
  real mu;
  real<lower=0> tau;
  real<lower=0> omega;
  real<lower=0> sigma;
  vector[A] school;
  vector[W] week;
}
model {
  mu ~ normal(0, 2);
  tau ~ normal(0, 1);
  omega ~ normal(0, 1);
  sigma ~ normal(0, 1);
  school ~ normal(mu, tau);
  week[1] ~ normal(0, 1);
  week[2 : W] ~ normal(week[1 : W - 1], omega);
  for (w in 1 : W) {
    y[ : , w] ~ normal(school + week[w], sigma);
  }
}
