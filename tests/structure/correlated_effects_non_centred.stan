// The same model with standard normal columns: group j owns column j of z.
data {
  int<lower=0> N;
  int<lower=0> J;
  array[N] int<lower=1, upper=J> g;
  vector[N] x;
  vector[N] y;
}
parameters {
  row_vector[2] mu;
  vector<lower=0>[2] tau;
  cholesky_factor_corr[2] L;
  real<lower=0> sigma;
  matrix[2, J] z;
}
transformed parameters {
  matrix[J, 2] beta = rep_matrix(mu, J) + (diag_pre_multiply(tau, L) * z)';
}
model {
  mu ~ normal(0, 2);
  tau ~ normal(0, 1);
  L ~ lkj_corr_cholesky(2);
  sigma ~ normal(0, 1);
  to_vector(z) ~ std_normal();
  y ~ normal(beta[g, 1] + beta[g, 2] .* x, sigma);
}
