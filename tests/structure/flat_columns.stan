// All intercepts, then all slopes in one flat vector, which the program makes a matrix of.
data {
  int<lower=1> K;
  int<lower=1> P;
  int<lower=1> T;
  matrix[K, T] y;
  vector[T] x;
}
parameters {
  vector[K * P] eta;
  vector[P] mu;
  real<lower=0> sigma;
}
model {
  matrix[K, P] beta = to_matrix(eta, K, P);
  mu ~ normal(0, 2);
  sigma ~ normal(0, 1);
  eta ~ std_normal();
  for (k in 1:K) {
    vector[T] fitted = rep_vector(0, T);
    for (p in 1:P)
      fitted += (mu[p] + beta[k, p]) * pow(x, p - 1);
    y[k] ~ normal(fitted, sigma);
  }
}
