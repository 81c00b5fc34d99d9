// Groups of unequal length, given by their first and last row.
data {
  int<lower=0> N;
  int<lower=0> J;
  array[J] int<lower=1> first;
  array[J] int<lower=0> last;
  array[N] int<lower=0> y;
}
parameters {
  real mu;
  real<lower=0> tau;
  vector[J] z;
}
model {
  mu ~ normal(0, 2);
  tau ~ normal(0, 1);
  z ~ normal(mu, tau);
  for (j in 1 : J) {
    y[first[j] : last[j]] ~ poisson_log(z[j]);
  }
}
