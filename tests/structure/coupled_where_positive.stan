// Neighbours meet only where both latents are positive: at many points the coupling does not show.
data {
  int<lower=1> N;
  vector[N] y;
}
parameters {
  real mu;
  vector[N] z;
}
model {
  mu ~ normal(0, 1);
  z ~ normal(mu, 1);
  for (n in 2 : N) {
    if (z[n] > 0 && z[n - 1] > 0) {
      target += -square(z[n] * z[n - 1]);
    }
  }
  y ~ normal(z, 1);
}
