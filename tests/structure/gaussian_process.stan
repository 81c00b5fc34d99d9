// A Gaussian process through its Cholesky factor: standard normal parameters, all coupled by the likelihood.
data {
  int<lower=1> N;
  array[N] real x;
  vector[N] y;
}
parameters {
  real<lower=0> length_scale;
  real<lower=0> amplitude;
  real<lower=0> sigma;
  vector[N] eta;
}
transformed parameters {
  vector[N] f;
  {
    matrix[N, N] K = add_diag(gp_exp_quad_cov(x, amplitude, length_scale), 1e-8);
    f = cholesky_decompose(K) * eta;
  }
}
model {
  length_scale ~ inv_gamma(5, 5);
  amplitude ~ normal(0, 1);
  sigma ~ normal(0, 1);
  eta ~ std_normal();
  y ~ normal(f, sigma);
}
