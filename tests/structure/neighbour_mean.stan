// The mean of a latent depends on the observation before it, which is another unit's.
data {
  int<lower=1> N;
  vector[N] x;
}
parameters {
  real a;
  real b;
  real<lower=0> tau;
  vector[N] z;
}
model {
  a ~ normal(0, 2);
  b ~ normal(0, 1);
  tau ~ normal(0, 1);
  z[1] ~ normal(a, tau);
  for (n in 2 : N) {
    z[n] ~ normal(a + b * x[n - 1], tau);
  }
  x ~ normal(z, 0.5);
}
