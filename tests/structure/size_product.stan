// One latent per cell of a table, stored in one vector of J * K.
data {
  int<lower=1> J;
  int<lower=1> K;
  array[J, K] int<lower=0> y;
}
parameters {
  real mu;
  real<lower=0> tau;
  vector[J * K] u;
}
model {
  mu ~ normal(0, 2);
  tau ~ normal(0, 1);
  u ~ normal(0, tau);
  for (j in 1 : J) {
    for (k in 1 : K) {
      y[j, k] ~ poisson_log(mu + u[(j - 1) * K + k]);
    }
  }
}
