// The latent is a true covariate, seen through two data columns.
data {
  int<lower=0> N;
  vector[N] w;
  vector[N] y;
}
parameters {
  real mu;
  real<lower=0> tau;
  real a;
  real b;
  real<lower=0> sigma;
  vector[N] z;
}
model {
  mu ~ normal(0, 2);
  tau ~ normal(0, 2);
  a ~ normal(0, 2);
  b ~ normal(0, 2);
  sigma ~ normal(0, 1);
  z ~ normal(mu, tau);
  w ~ normal(z, 0.5);
  y ~ normal(a + b * z, sigma);
}
