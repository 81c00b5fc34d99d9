// The hidden states are summed out by the forward algorithm: no parameter belongs to a time point.
data {
  int<lower=1> T;
  int<lower=2> K;
  vector[T] y;
}
parameters {
  array[K] simplex[K] Gamma;
  ordered[K] mu;
}
model {
  vector[K] acc;
  mu ~ normal(0, 3);
  for (k in 1 : K) {
    Gamma[k] ~ dirichlet(rep_vector(2, K));
    acc[k] = -log(K) + normal_lpdf(y[1] | mu[k], 1);
  }
  for (t in 2 : T) {
    vector[K] next;
    for (k in 1 : K) {
      next[k] = log_sum_exp(acc + log(to_vector(Gamma[ : , k]))) + normal_lpdf(y[t] | mu[k], 1);
    }
    acc = next;
  }
  target += log_sum_exp(acc);
}
