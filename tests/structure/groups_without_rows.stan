// Some groups have no rows at all: their scores carry the prior and nothing else.
data {
  int<lower=0> N;
  int<lower=0> J;
  array[N] int<lower=1, upper=J> g;
  array[N] int<lower=0, upper=1> y;
}
parameters {
  real mu;
  real<lower=0> tau;
  vector[J] alpha;
}
model {
  mu ~ normal(0, 2);
  tau ~ normal(0, 1);
  alpha ~ normal(mu, tau);
  y ~ bernoulli_logit(alpha[g]);
}
