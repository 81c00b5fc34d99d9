// A latent level that follows its own past, observed with noise: latents are coupled, and everything is Gaussian.
data {
  int<lower=1> T;
  vector[T] y;
  real<lower=-1, upper=1> rho; // how much of the level stays from one time to the next
  real<lower=0> tau;           // standard deviation of the level's steps
  real<lower=0> sigma;         // standard deviation of an observation around its level
}
parameters {
  real mu; // flat prior
  vector[T] z;
}
model {
  z[1] ~ normal(0, tau / sqrt(1 - square(rho)));
  z[2 : T] ~ normal(rho * z[1 : (T - 1)], tau);
  y ~ normal(mu + z, sigma);
}
