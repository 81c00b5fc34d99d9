// The number of units is counted in transformed data: only the entries marked as seen have a latent.
data {
  int<lower=1> N;
  array[N] int<lower=0, upper=1> seen;
  vector[N] x;
}
transformed data {
  int n_seen = sum(seen);
  array[n_seen] int where_seen;
  {
    int k = 0;
    for (n in 1 : N) {
      if (seen[n] == 1) {
        k += 1;
        where_seen[k] = n;
      }
    }
  }
}
parameters {
  real mu;
  real<lower=0> tau;
  vector[n_seen] z;
}
model {
  mu ~ normal(0, 2);
  tau ~ normal(0, 1);
  z ~ normal(mu, tau);
  x[where_seen] ~ normal(z, 0.5);
}
