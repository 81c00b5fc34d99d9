// Latents coupled to the one before and the one after.
data {
  int<lower=1> T;
  vector[T] y;
}
parameters {
  real<lower=0> tau;
  vector[T] z;
}
model {
  tau ~ normal(0, 1);
  z[1] ~ normal(0, 2);
  z[2 : T] ~ normal(z[1 : T - 1], tau);
  y ~ normal(z, 0.5);
}
