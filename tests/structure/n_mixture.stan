// Abundance and detection at sites, as packages write it: many data entries, of which few enter the density.
functions {
  real lp_site(array[] int y, int K, int Kmin, real log_lambda, vector logit_p) {
    vector[K - Kmin + 1] terms;
    for (n in Kmin:K)
      terms[n - Kmin + 1] = poisson_log_lpmf(n | log_lambda) + binomial_logit_lpmf(y | n, logit_p);
    return log_sum_exp(terms);
  }
}
data {
  int<lower=1> M;
  int<lower=1> T;
  int<lower=1> P;
  int<lower=1> K;
  array[M, T] int<lower=0> y;
  array[M] int<lower=0, upper=K> Kmin;
  matrix[M, P] X;
  matrix[M, T] V;
  vector[M] offset_state;
  matrix[M, T] offset_det;
  int has_random_state;
  int has_random_det;
  int prior_dist_state;
  int prior_dist_det;
  vector[3] prior_pars_state;
  vector[3] prior_pars_det;
  array[M] int visits;
  array[M] int first_visit;
  array[M] int site;
  array[M] int primary;
  matrix[M, 3] basis;
  vector[M] area;
  vector[M] no_weights;
  array[M] int no_groups;
  vector[4] knots;
}
parameters {
  real intercept;
  vector[P] beta;
  real detection;
  real slope;
  real<lower=0> sigma;
  vector[M] eps;
}
model {
  vector[M] log_lambda = intercept + X * beta + offset_state + sigma * eps;
  intercept ~ normal(0, 1);
  beta ~ normal(0, 1);
  detection ~ normal(0, 1);
  slope ~ normal(0, 1);
  sigma ~ normal(0, 0.5);
  eps ~ std_normal();
  for (m in 1:M)
    target += lp_site(y[m], K, Kmin[m], log_lambda[m], detection + slope * V[m]' + offset_det[m]');
}
