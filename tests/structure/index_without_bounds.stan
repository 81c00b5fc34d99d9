// The index array declares no bounds, so nothing in the declarations says that it points into J groups.
data {
  int<lower=0> N;
  int<lower=0> J;
  array[N] int county;
  vector[N] y;
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
  for (n in 1 : N) {
    y[n] ~ normal(alpha[county[n]], 1);
  }
}
