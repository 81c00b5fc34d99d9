// y ~ x1 + x2 + (1 |p| g), sigma ~ x3 + (1 |p| g): scales that depend on predictors
data {
  int<lower=1> N; // observations
  vector[N] Y;
  int<lower=1> K; // population-level effects
  matrix[N, K] X;
  int<lower=1> Kc; // after centering
  int<lower=1> K_sigma;
  matrix[N, K_sigma] X_sigma;
  int<lower=1> Kc_sigma;
  vector[N] Z_1_sigma_2;
  int<lower=1> N_1; // grouping levels
  int<lower=1> M_1; // coefficients per level
  array[N] int<lower=1> J_1;
  vector[N] Z_1_1;
  int prior_only;
}
transformed data {
  matrix[N, Kc] Xc;
  vector[Kc] means_X;
  matrix[N, Kc_sigma] Xc_sigma;
  vector[Kc_sigma] means_X_sigma;
  for (i in 2 : K) {
    means_X[i - 1] = mean(X[ : , i]);
    Xc[ : , i - 1] = X[ : , i] - means_X[i - 1];
  }
  for (i in 2 : K_sigma) {
    means_X_sigma[i - 1] = mean(X_sigma[ : , i]);
    Xc_sigma[ : , i - 1] = X_sigma[ : , i] - means_X_sigma[i - 1];
  }
}
parameters {
  vector[Kc] b;
  real Intercept;
  vector[Kc_sigma] b_sigma;
  real Intercept_sigma;
  vector<lower=0>[M_1] sd_1;
  array[M_1] vector[N_1] z_1;
}
transformed parameters {
  vector[N_1] r_1_1;
  vector[N_1] r_1_sigma_2;
  real lprior = 0;
  r_1_1 = sd_1[1] * z_1[1];
  r_1_sigma_2 = sd_1[2] * z_1[2];
  lprior += normal_lpdf(b | 0, 2);
  lprior += student_t_lpdf(Intercept | 3, 0, 2.5);
  lprior += student_t_lpdf(sd_1 | 3, 0, 2.5) - 1 * student_t_lccdf(0 | 3, 0, 2.5);
  lprior += normal_lpdf(b_sigma | 0, 1);
  lprior += student_t_lpdf(Intercept_sigma | 3, 0, 2.5);
}
model {
  if (!prior_only) {
    vector[N] mu = rep_vector(0.0, N);
    mu += Intercept + Xc * b;
    for (n in 1 : N) {
      mu[n] += r_1_1[J_1[n]] * Z_1_1[n];
    }
    vector[N] sigma = rep_vector(0.0, N);
    sigma += Intercept_sigma + Xc_sigma * b_sigma;
    for (n in 1 : N) {
      sigma[n] += r_1_sigma_2[J_1[n]] * Z_1_sigma_2[n];
    }
    sigma = exp(sigma);
    target += normal_lpdf(Y | mu, sigma);
  }
  target += lprior;
  target += std_normal_lpdf(z_1[1]);
  target += std_normal_lpdf(z_1[2]);
}
generated quantities {
  real b_Intercept = Intercept - dot_product(means_X, b);
  real b_sigma_Intercept = Intercept_sigma - dot_product(means_X_sigma, b_sigma);
}
