// A unit owns a column of y.
data {
  int<lower=0> N;
  int<lower=0> T;
  array[T, N] int<lower=0> y;
}
parameters {
  vector[T] season;
  real<lower=0> tau;
  vector[N] z;
}
model {
  season ~ normal(0, 1);
  tau ~ normal(0, 1);
  z ~ normal(0, tau);
  for (t in 1 : T) {
    y[t] ~ poisson_log(season[t] + z);
  }
}
