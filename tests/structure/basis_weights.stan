// Weights of basis functions of an approximate Gaussian process: those of high frequency hardly matter at some points.
data {
  int<lower=1> N;
  int<lower=1> M;
  matrix[N, M] basis;
  vector<lower=0>[M] frequency;
  vector[N] y;
}
parameters {
  real<lower=0> amplitude;
  real<lower=0> lengthscale;
  real<lower=0> sigma;
  vector[M] z;
}
model {
  amplitude ~ normal(0, 1);
  lengthscale ~ inv_gamma(3, 1);
  sigma ~ normal(0, 1);
  z ~ std_normal();
  y ~ normal(basis * (amplitude * sqrt(lengthscale) * exp(-0.25 * square(lengthscale * frequency)) .* z), sigma);
}
