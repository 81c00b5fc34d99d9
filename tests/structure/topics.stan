// Documents of words with the topic of every word summed out; a document's latent is a simplex.
data {
  int<lower=2> K; // topics
  int<lower=2> V; // words in the vocabulary
  int<lower=1> M; // documents
  int<lower=1> N; // words in all documents
  array[N] int<lower=1, upper=V> w;
  array[N] int<lower=1, upper=M> doc;
}
parameters {
  array[M] simplex[K] theta;
  array[K] simplex[V] phi;
}
model {
  for (m in 1 : M) {
    theta[m] ~ dirichlet(rep_vector(1.2, K));
  }
  for (k in 1 : K) {
    phi[k] ~ dirichlet(rep_vector(1.2, V));
  }
  for (n in 1 : N) {
    vector[K] gamma;
    for (k in 1 : K) {
      gamma[k] = log(theta[doc[n], k]) + log(phi[k, w[n]]);
    }
    target += log_sum_exp(gamma);
  }
}
