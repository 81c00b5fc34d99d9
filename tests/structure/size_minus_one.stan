// One latent per step between observations: the size is an expression, and each step sees two entries of x.
data {
  int<lower=2> N;
  vector[N] x;
}
parameters {
  real mu;
  real<lower=0> tau;
  vector[N - 1] jump;
}
model {
  mu ~ normal(0, 1);
  tau ~ normal(0, 1);
  jump ~ normal(mu, tau);
  x[2 : N] ~ normal(x[1 : N - 1] + jump, 0.5);
}
