// One latent and one observation per unit: the plainest closable program.
data {
  int<lower=0> N;
  vector[N] x;
}
parameters {
  real theta;
  vector[N] z;
}
model {
  z ~ normal(theta, 1.2);
  x ~ normal(z, 2.4);
}
