// A prior on the sum of all latents couples every pair of units.
data {
  int<lower=1> J;
  vector[J] y;
}
parameters {
  real mu;
  real<lower=0> tau;
  vector[J] alpha;
}
model {
  mu ~ normal(0, 2);
  tau ~ normal(0, 1);
  alpha ~ normal(0, tau);
  sum(alpha) ~ normal(0, 0.01 * J);
  y ~ normal(mu + alpha, 1);
}
