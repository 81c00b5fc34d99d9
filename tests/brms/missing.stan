// bf(y ~ mi(x) + x1 + x2) + bf(x | mi() ~ x1 + x2): missing values of a predictor are parameters
data {
  int<lower=1> N; // observations
  int<lower=1> N_y;
  vector[N_y] Y_y;
  int<lower=1> K_y; // population-level effects
  matrix[N_y, K_y] X_y;
  int<lower=1> Kc_y; // after centering
  int<lower=1> Ksp_y; // special effects
  int<lower=1> N_x;
  vector[N_x] Y_x;
  int<lower=0> Nmi_x; // missing values
  array[Nmi_x] int<lower=1> Jmi_x; // where they are
  int<lower=1> K_x;
  matrix[N_x, K_x] X_x;
  int<lower=1> Kc_x;
  int prior_only;
}
transformed data {
  matrix[N_y, Kc_y] Xc_y;
  vector[Kc_y] means_X_y;
  matrix[N_x, Kc_x] Xc_x;
  vector[Kc_x] means_X_x;
  for (i in 2 : K_y) {
    means_X_y[i - 1] = mean(X_y[ : , i]);
    Xc_y[ : , i - 1] = X_y[ : , i] - means_X_y[i - 1];
  }
  for (i in 2 : K_x) {
    means_X_x[i - 1] = mean(X_x[ : , i]);
    Xc_x[ : , i - 1] = X_x[ : , i] - means_X_x[i - 1];
  }
}
parameters {
  vector[Kc_y] b_y;
  real Intercept_y;
  vector[Ksp_y] bsp_y;
  real<lower=0> sigma_y;
  vector[Nmi_x] Ymi_x;
  vector[Kc_x] b_x;
  real Intercept_x;
  real<lower=0> sigma_x;
}
transformed parameters {
  real lprior = 0;
  lprior += normal_lpdf(b_y | 0, 2);
  lprior += student_t_lpdf(Intercept_y | 3, 0, 2.5);
  lprior += normal_lpdf(bsp_y | 0, 1);
  lprior += student_t_lpdf(sigma_y | 3, 0, 2.5) - 1 * student_t_lccdf(0 | 3, 0, 2.5);
  lprior += normal_lpdf(b_x | 0, 2);
  lprior += student_t_lpdf(Intercept_x | 3, 0, 2.5);
  lprior += student_t_lpdf(sigma_x | 3, 0, 2.5) - 1 * student_t_lccdf(0 | 3, 0, 2.5);
}
model {
  if (!prior_only) {
    vector[N_x] Yl_x = Y_x;
    vector[N_y] mu_y = rep_vector(0.0, N_y);
    vector[N_x] mu_x = rep_vector(0.0, N_x);
    Yl_x[Jmi_x] = Ymi_x;
    mu_y += Intercept_y;
    for (n in 1 : N_y) {
      mu_y[n] += bsp_y[1] * Yl_x[n];
    }
    mu_x += Intercept_x;
    target += normal_id_glm_lpdf(Y_y | Xc_y, mu_y, b_y, sigma_y);
    target += normal_id_glm_lpdf(Yl_x | Xc_x, mu_x, b_x, sigma_x);
  }
  target += lprior;
}
generated quantities {
  real b_y_Intercept = Intercept_y - dot_product(means_X_y, b_y);
  real b_x_Intercept = Intercept_x - dot_product(means_X_x, b_x);
}
