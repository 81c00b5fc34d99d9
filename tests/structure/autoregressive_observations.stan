// Observations follow each other, latents do not: unit n needs y[n - 1] and y[n].
data {
  int<lower=1> N;
  vector[N] y;
}
parameters {
  real<lower=-1, upper=1> rho;
  real<lower=0> tau;
  vector[N] z;
}
model {
  tau ~ normal(0, 1);
  z ~ normal(0, tau);
  y[1] ~ normal(z[1], 0.5);
  y[2 : N] ~ normal(rho * y[1 : N - 1] + z[2 : N], 0.5);
}
