// Every unit has a row of a covariate matrix besides its observation.
data {
  int<lower=0> N;
  int<lower=1> P;
  matrix[N, P] X;
  array[N] int<lower=0> y;
}
parameters {
  real alpha;
  vector[P] beta;
  real<lower=0> tau;
  vector[N] z;
}
model {
  alpha ~ normal(0, 2);
  beta ~ std_normal();
  tau ~ normal(0, 1);
  z ~ normal(0, tau);
  y ~ poisson_log(alpha + X * beta + z);
}
