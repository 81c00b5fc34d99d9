// As flat_blocks, but the groups' intercepts are a random walk: no units.
data {
  int<lower=1> N;
  int<lower=1> J;
  array[N] int<lower=1, upper=J> group;
  vector[N] x;
  array[N] int<lower=0> y;
}
transformed data {
  int q = 2 * J;
}
parameters {
  real alpha;
  real beta;
  vector<lower=0>[2] tau;
  vector[q] b;
}
model {
  alpha ~ normal(0, 2);
  beta ~ normal(0, 2);
  tau ~ normal(0, 1);
  b[1] ~ normal(0, 1);
  for (j in 2:J)
    b[2 * j - 1] ~ normal(b[2 * j - 3], tau[1]);
  for (j in 1:J)
    b[2 * j] ~ normal(0.5 * b[2 * j - 1], tau[2]);
  for (n in 1:N)
    y[n] ~ poisson_log(alpha + b[2 * group[n] - 1] + (beta + b[2 * group[n]]) * x[n]);
}
