// Regularized horseshoe: every coefficient has its own scale, and the regression couples them all.
data {
  int<lower=0> N;
  int<lower=1> P;
  matrix[N, P] X;
  vector[N] y;
}
parameters {
  real alpha;
  real<lower=0> sigma;
  real<lower=0> tau;
  real<lower=0> slab;
  vector<lower=0>[P] lambda;
  vector[P] z;
}
transformed parameters {
  vector[P] beta = z * tau .* lambda .* inv_sqrt(1 + square(tau * lambda / slab));
}
model {
  alpha ~ normal(0, 2);
  sigma ~ normal(0, 1);
  tau ~ cauchy(0, 0.1);
  slab ~ inv_gamma(2, 8);
  lambda ~ cauchy(0, 1);
  z ~ std_normal();
  y ~ normal(alpha + X * beta, sigma);
}
