// A series that falls back to its latents: each latent stands between two observations and needs both.
data {
  int<lower=0> N;
  vector[N + 1] x; // x[1] is the start of the series
  real a;
}
parameters {
  real theta; // flat prior
  vector[N] z;
}
model {
  z ~ normal(x[1 : N], 1);
  x[2 : N + 1] ~ normal(a * (z + theta), 1);
}
