// A unit's latents sit in two vectors and depend on each other within the unit.
data {
  int<lower=0> N;
  int<lower=1> R;
  array[N] vector[R] y;
}
parameters {
  real mu;
  real rho;
  real<lower=0> tau;
  vector[N] m;
  vector[N] log_s;
}
model {
  mu ~ normal(0, 2);
  rho ~ normal(0, 1);
  tau ~ normal(0, 1);
  log_s ~ normal(0, 0.5);
  m ~ normal(mu + rho * log_s, tau);
  for (n in 1 : N) {
    y[n] ~ normal(m[n], exp(log_s[n]));
  }
}
