// The groups have data of their own: a predictor of the intercepts, of length J.
data {
  int<lower=0> N;
  int<lower=0> J;
  array[N] int<lower=1, upper=J> g;
  vector[J] u;
  vector[N] x;
  vector[N] y;
}
parameters {
  real gamma_0;
  real gamma_1;
  real beta;
  real<lower=0> tau;
  real<lower=0> sigma;
  vector[J] alpha;
}
model {
  gamma_0 ~ normal(0, 2);
  gamma_1 ~ normal(0, 2);
  beta ~ normal(0, 2);
  tau ~ normal(0, 1);
  sigma ~ normal(0, 1);
  alpha ~ normal(gamma_0 + gamma_1 * u, tau);
  y ~ normal(alpha[g] + beta * x, sigma);
}
