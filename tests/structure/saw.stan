// The saw series: a latent stands between two observations and needs both; x[1] is the start of the series.
data {
  int<lower=0> N;
  vector[N + 1] x;
  real a;
}
parameters {
  real theta;
  vector[N] z;
}
model {
  z ~ normal(x[1 : N], 1);
  x[2 : N + 1] ~ normal(a * (z + theta), 1);
}
