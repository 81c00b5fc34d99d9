// A unit's latents are one column of a matrix, written as one vectorized product.
data {
  int<lower=0> N;
  int<lower=1> K;
  int<lower=1> D;
  matrix[D, N] y;
}
parameters {
  matrix[D, K] W;
  real<lower=0> sigma;
  matrix[K, N] Z;
}
model {
  to_vector(W) ~ std_normal();
  sigma ~ normal(0, 1);
  to_vector(Z) ~ std_normal();
  to_vector(y) ~ normal(to_vector(W * Z), sigma);
}
