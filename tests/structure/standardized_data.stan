// Transformed data standardize over all rows: units separate, but dropping rows changes the others.
data {
  int<lower=2> N;
  vector[N] y;
}
transformed data {
  vector[N] y_std = (y - mean(y)) / sd(y);
}
parameters {
  real mu;
  real<lower=0> tau;
  vector[N] z;
}
model {
  mu ~ normal(0, 1);
  tau ~ normal(0, 1);
  z ~ normal(mu, tau);
  y_std ~ student_t(4, z, 0.5);
}
