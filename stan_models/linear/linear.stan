// Normal observations of normal latents with a common mean; everything is Gaussian, so every answer is known.
data {
  int<lower=0> N;
  vector[N] x;
  real<lower=0> tau;   // standard deviation of the latents around theta
  real<lower=0> sigma; // standard deviation of an observation around its latent
}
parameters {
  real theta; // flat prior
  vector[N] z;
}
model {
  z ~ normal(theta, tau);
  x ~ normal(z, sigma);
}
