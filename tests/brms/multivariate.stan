// mvbind(u, v) ~ x1 + x2 + (1 |p| g), set_rescor(TRUE): two responses with correlated residuals
data {
  int<lower=1> N;
  int<lower=1> N_u;
  vector[N_u] Y_u;
  int<lower=1> K_u;
  matrix[N_u, K_u] X_u;
  int<lower=1> Kc_u;
  int<lower=1> N_v;
  vector[N_v] Y_v;
  int<lower=1> K_v;
  matrix[N_v, K_v] X_v;
  int<lower=1> Kc_v;
  int<lower=1> nresp;
  int nrescor;
  int<lower=1> N_1;
  int<lower=1> M_1;
  array[N_u] int<lower=1> J_1_u;
  array[N_v] int<lower=1> J_1_v;
  vector[N_u] Z_1_u_1;
  vector[N_v] Z_1_v_2;
  int prior_only;
}
transformed data {
  matrix[N_u, Kc_u] Xc_u;
  vector[Kc_u] means_X_u;
  matrix[N_v, Kc_v] Xc_v;
  vector[Kc_v] means_X_v;
  array[N] vector[nresp] Y;
  for (i in 2 : K_u) {
    means_X_u[i - 1] = mean(X_u[ : , i]);
    Xc_u[ : , i - 1] = X_u[ : , i] - means_X_u[i - 1];
  }
  for (i in 2 : K_v) {
    means_X_v[i - 1] = mean(X_v[ : , i]);
    Xc_v[ : , i - 1] = X_v[ : , i] - means_X_v[i - 1];
  }
  for (n in 1 : N) {
    Y[n] = transpose([Y_u[n], Y_v[n]]);
  }
}
parameters {
  vector[Kc_u] b_u;
  real Intercept_u;
  real<lower=0> sigma_u;
  vector[Kc_v] b_v;
  real Intercept_v;
  real<lower=0> sigma_v;
  cholesky_factor_corr[nresp] Lrescor;
  vector<lower=0>[M_1] sd_1;
  array[M_1] vector[N_1] z_1;
}
transformed parameters {
  vector[N_1] r_1_u_1;
  vector[N_1] r_1_v_2;
  real lprior = 0;
  r_1_u_1 = sd_1[1] * z_1[1];
  r_1_v_2 = sd_1[2] * z_1[2];
  lprior += normal_lpdf(b_u | 0, 2);
  lprior += student_t_lpdf(Intercept_u | 3, 0, 2.5);
  lprior += student_t_lpdf(sigma_u | 3, 0, 2.5) - 1 * student_t_lccdf(0 | 3, 0, 2.5);
  lprior += normal_lpdf(b_v | 0, 2);
  lprior += student_t_lpdf(Intercept_v | 3, 0, 2.5);
  lprior += student_t_lpdf(sigma_v | 3, 0, 2.5) - 1 * student_t_lccdf(0 | 3, 0, 2.5);
  lprior += lkj_corr_cholesky_lpdf(Lrescor | 1);
  lprior += student_t_lpdf(sd_1 | 3, 0, 2.5) - 2 * student_t_lccdf(0 | 3, 0, 2.5);
}
model {
  if (!prior_only) {
    vector[N_u] mu_u = rep_vector(0.0, N_u);
    vector[N_v] mu_v = rep_vector(0.0, N_v);
    array[N] vector[nresp] Mu;
    vector[nresp] sigma = transpose([sigma_u, sigma_v]);
    matrix[nresp, nresp] LSigma = diag_pre_multiply(sigma, Lrescor);
    mu_u += Intercept_u + Xc_u * b_u;
    mu_v += Intercept_v + Xc_v * b_v;
    for (n in 1 : N_u) {
      mu_u[n] += r_1_u_1[J_1_u[n]] * Z_1_u_1[n];
    }
    for (n in 1 : N_v) {
      mu_v[n] += r_1_v_2[J_1_v[n]] * Z_1_v_2[n];
    }
    for (n in 1 : N) {
      Mu[n] = transpose([mu_u[n], mu_v[n]]);
    }
    target += multi_normal_cholesky_lpdf(Y | Mu, LSigma);
  }
  target += lprior;
  target += std_normal_lpdf(z_1[1]);
  target += std_normal_lpdf(z_1[2]);
}
generated quantities {
  real b_u_Intercept = Intercept_u - dot_product(means_X_u, b_u);
  real b_v_Intercept = Intercept_v - dot_product(means_X_v, b_v);
}
