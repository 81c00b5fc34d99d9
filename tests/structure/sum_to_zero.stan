// The constraint itself couples the units: J effects from J - 1 unconstrained coordinates.
data {
  int<lower=0> N;
  int<lower=2> J;
  array[N] int<lower=1, upper=J> g;
  vector[N] y;
}
parameters {
  real mu;
  real<lower=0> tau;
  sum_to_zero_vector[J] alpha;
}
model {
  mu ~ normal(0, 2);
  tau ~ normal(0, 1);
  alpha ~ normal(0, tau);
  y ~ normal(mu + alpha[g], 1);
}
