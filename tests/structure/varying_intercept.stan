// Rows reach their group's latent through an index array.
data {
  int<lower=0> N;
  int<lower=0> J;
  array[N] int<lower=1, upper=J> g;
  vector[N] x;
  vector[N] y;
}
parameters {
  real mu;
  real beta;
  real<lower=0> tau;
  real<lower=0> sigma;
  vector[J] alpha;
}
model {
  mu ~ normal(0, 2);
  beta ~ normal(0, 2);
  tau ~ normal(0, 1);
  sigma ~ normal(0, 1);
  alpha ~ normal(mu, tau);
  y ~ normal(alpha[g] + beta * x, sigma);
}
