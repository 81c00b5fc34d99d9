// The position n itself enters the density: the same observation means something else later on.
data {
  int<lower=1> N;
  array[N] int<lower=0> y;
}
parameters {
  real a;
  real trend;
  real<lower=0> tau;
  vector[N] z;
}
model {
  a ~ normal(0, 2);
  trend ~ normal(0, 1);
  tau ~ normal(0, 1);
  z ~ normal(0, tau);
  for (n in 1 : N) {
    y[n] ~ poisson_log(a + trend * n / N + z[n]);
  }
}
