// The density rejects as soon as one latent passes 1.5: some reference points cannot be used.
data {
  int<lower=0> N;
  vector[N] x;
}
parameters {
  real mu;
  vector[N] z;
}
model {
  mu ~ normal(0, 1);
  z ~ normal(mu, 1);
  for (n in 1 : N) {
    if (z[n] > 1.5) {
      reject("z[", n, "] is ", z[n], ", but must not exceed 1.5");
    }
  }
  x ~ normal(z, 1);
}
