// A random walk for every person: persons separate with a block of T latents, time points do not.
data {
  int<lower=1> P; // persons
  int<lower=2> T; // times
  array[P] vector[T] y;
}
parameters {
  real<lower=0> tau;
  real<lower=0> sigma;
  array[P] vector[T] z;
}
model {
  tau ~ normal(0, 1);
  sigma ~ normal(0, 1);
  for (p in 1 : P) {
    z[p, 1] ~ normal(0, 2);
    z[p, 2 : T] ~ normal(z[p, 1 : T - 1], tau);
    y[p] ~ normal(z[p], sigma);
  }
}
