// Areas coupled along the edges of a map, by pairwise differences.
data {
  int<lower=0> A; // areas
  int<lower=0> E; // edges
  array[E] int<lower=1, upper=A> node1;
  array[E] int<lower=1, upper=A> node2;
  array[A] int<lower=0> y;
}
parameters {
  real<lower=0> tau;
  vector[A] phi;
}
model {
  tau ~ normal(0, 1);
  target += A * log(tau) - 0.5 * square(tau) * dot_self(phi[node1] - phi[node2]);
  y ~ poisson_log(phi);
}
