// Intercept and slope of a group are correlated; the Cholesky factor is global.
data {
  int<lower=0> N;
  int<lower=0> J;
  array[N] int<lower=1, upper=J> g;
  vector[N] x;
  vector[N] y;
}
parameters {
  vector[2] mu;
  vector<lower=0>[2] tau;
  cholesky_factor_corr[2] L;
  real<lower=0> sigma;
  array[J] vector[2] beta;
}
model {
  mu ~ normal(0, 2);
  tau ~ normal(0, 1);
  L ~ lkj_corr_cholesky(2);
  sigma ~ normal(0, 1);
  beta ~ multi_normal_cholesky(mu, diag_pre_multiply(tau, L));
  for (n in 1 : N) {
    y[n] ~ normal(beta[g[n], 1] + beta[g[n], 2] * x[n], sigma);
  }
}
