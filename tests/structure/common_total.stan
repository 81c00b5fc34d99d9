// Independent a priori, each with its own observation, but one shared count sees the sum of them all.
data {
  int<lower=1> N;
  vector[N] y;
  int<lower=0> total;
}
parameters {
  real mu;
  real<lower=0> tau;
  vector[N] z;
}
model {
  mu ~ normal(0, 1);
  tau ~ normal(0, 1);
  z ~ normal(mu, tau);
  y ~ normal(z, 1);
  total ~ poisson(sum(exp(z)));
}
