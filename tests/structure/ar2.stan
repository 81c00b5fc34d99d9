// A second-order autoregression: neighbours at distance one and two.
data {
  int<lower=2> T;
  array[T] int<lower=0> y;
}
parameters {
  real a_1;
  real a_2;
  real<lower=0> tau;
  vector[T] z;
}
model {
  a_1 ~ normal(0, 0.5);
  a_2 ~ normal(0, 0.5);
  tau ~ normal(0, 1);
  z[1 : 2] ~ normal(0, 1);
  for (t in 3 : T) {
    z[t] ~ normal(a_1 * z[t - 1] + a_2 * z[t - 2], tau);
  }
  y ~ poisson_log(z);
}
