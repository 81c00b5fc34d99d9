// A unit's latents are one row of a matrix, so they are N apart in memory.
data {
  int<lower=0> N;
  int<lower=1> K;
  int<lower=1> D;
  matrix[N, D] y;
}
parameters {
  matrix[K, D] W;
  real<lower=0> sigma;
  matrix[N, K] Z;
}
model {
  to_vector(W) ~ std_normal();
  sigma ~ normal(0, 1);
  to_vector(Z) ~ std_normal();
  to_vector(y) ~ normal(to_vector(Z * W), sigma);
}
