// The latents are missing outcomes: their only data are their covariates.
data {
  int<lower=0> N_obs;
  int<lower=0> N_mis;
  vector[N_obs] x_obs;
  vector[N_obs] y_obs;
  vector[N_mis] x_mis;
}
parameters {
  real a;
  real b;
  real<lower=0> sigma;
  vector[N_mis] y_mis;
}
model {
  a ~ normal(0, 2);
  b ~ normal(0, 2);
  sigma ~ normal(0, 1);
  y_obs ~ normal(a + b * x_obs, sigma);
  y_mis ~ normal(a + b * x_mis, sigma);
}
