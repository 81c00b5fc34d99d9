// A unit's latent is positive: a gamma rate behind a count.
data {
  int<lower=0> N;
  vector<lower=0>[N] exposure;
  array[N] int<lower=0> y;
}
parameters {
  real<lower=0> shape;
  real<lower=0> rate;
  vector<lower=0>[N] lambda;
}
model {
  shape ~ gamma(2, 1);
  rate ~ gamma(2, 1);
  lambda ~ gamma(shape, rate);
  y ~ poisson(exposure .* lambda);
}
