// y ~ x1 + x2 + (1 | g), cumulative: ordered categories
data {
  int<lower=1> N;
  array[N] int Y;
  int<lower=2> nthres; // thresholds
  int<lower=1> K;
  matrix[N, K] X;
  int<lower=1> Kc;
  real<lower=0> disc;
  int<lower=1> N_1;
  int<lower=1> M_1;
  array[N] int<lower=1> J_1;
  vector[N] Z_1_1;
  int prior_only;
}
transformed data {
  matrix[N, Kc] Xc;
  vector[Kc] means_X;
  for (i in 1 : K) {
    means_X[i] = mean(X[ : , i]);
    Xc[ : , i] = X[ : , i] - means_X[i];
  }
}
parameters {
  vector[Kc] b;
  ordered[nthres] Intercept;
  vector<lower=0>[M_1] sd_1;
  array[M_1] vector[N_1] z_1;
}
transformed parameters {
  vector[N_1] r_1_1;
  real lprior = 0;
  r_1_1 = sd_1[1] * z_1[1];
  lprior += normal_lpdf(b | 0, 2);
  lprior += student_t_lpdf(Intercept | 3, 0, 2.5);
  lprior += student_t_lpdf(sd_1 | 3, 0, 2.5) - 1 * student_t_lccdf(0 | 3, 0, 2.5);
}
model {
  if (!prior_only) {
    vector[N] mu = rep_vector(0.0, N);
    mu += Xc * b;
    for (n in 1 : N) {
      mu[n] += r_1_1[J_1[n]] * Z_1_1[n];
    }
    for (n in 1 : N) {
      target += ordered_logistic_lpmf(Y[n] | mu[n], Intercept);
    }
  }
  target += lprior;
  target += std_normal_lpdf(z_1[1]);
}
generated quantities {
  vector[nthres] b_Intercept = Intercept + dot_product(means_X, b);
}
