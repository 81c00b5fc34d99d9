// The likelihood is a user function under reduce_sum: no statement names a unit's latent and its observation together.
functions {
  real partial_sum_lpmf(array[] int y_slice, int start, int end, vector z) {
    return poisson_log_lupmf(y_slice | z[start : end]);
  }
}
data {
  int<lower=1> N;
  array[N] int<lower=0> y;
}
parameters {
  real mu;
  real<lower=0> tau;
  vector[N] z;
}
model {
  mu ~ normal(0, 2);
  tau ~ normal(0, 1);
  z ~ normal(mu, tau);
  target += reduce_sum(partial_sum_lupmf, y, 1, z);
}
