// A unit's latent is a simplex: its shares of K profiles, with K - 1 unconstrained coordinates.
data {
  int<lower=0> N;
  int<lower=2> K;
  int<lower=2> V;
  array[N, V] int<lower=0> y;
}
parameters {
  array[K] simplex[V] phi;
  array[N] simplex[K] theta;
}
model {
  for (k in 1 : K) {
    phi[k] ~ dirichlet(rep_vector(2, V));
  }
  for (n in 1 : N) {
    vector[V] p = rep_vector(0, V);
    theta[n] ~ dirichlet(rep_vector(1.5, K));
    for (k in 1 : K) {
      p += theta[n, k] * phi[k];
    }
    y[n] ~ multinomial(p);
  }
}
