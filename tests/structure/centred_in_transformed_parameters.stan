// Only the latents minus their mean meet the data, so every unit sees all the others.
data {
  int<lower=1> N;
  array[N] int<lower=0> trials;
  array[N] int<lower=0> y;
}
parameters {
  real mu;
  real<lower=0> tau;
  vector[N] z;
}
transformed parameters {
  vector[N] effect = z - mean(z);
}
model {
  mu ~ normal(0, 2);
  tau ~ normal(0, 1);
  z ~ normal(0, tau);
  y ~ binomial_logit(trials, mu + effect);
}
