// A unit's latents are one array element: factor scores.
data {
  int<lower=0> N;
  int<lower=1> K;
  int<lower=1> D;
  array[N] vector[D] y;
}
parameters {
  matrix[D, K] W;
  vector[D] mu;
  real<lower=0> sigma;
  array[N] vector[K] z;
}
model {
  to_vector(W) ~ std_normal();
  mu ~ normal(0, 2);
  sigma ~ normal(0, 1);
  for (n in 1 : N) {
    z[n] ~ std_normal();
    y[n] ~ normal(mu + W * z[n], sigma);
  }
}
