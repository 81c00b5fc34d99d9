// As many units as measurements: the right axis separates, the other is coupled by a correlation matrix.
data {
  int<lower=1> J; // units
  int<lower=1> K; // measurements
  array[J] vector[K] y;
}
parameters {
  vector<lower=0>[K] tau;
  cholesky_factor_corr[K] L;
  array[J] vector[K] z;
}
model {
  tau ~ normal(0, 1);
  L ~ lkj_corr_cholesky(2);
  z ~ multi_normal_cholesky(rep_vector(0, K), diag_pre_multiply(tau, L));
  for (j in 1 : J) {
    y[j] ~ normal(z[j], 0.5);
  }
}
