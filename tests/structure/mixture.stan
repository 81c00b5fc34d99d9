// Memberships are summed out; the weights and locations of the components are globals.
data {
  int<lower=1> N;
  int<lower=2> K;
  vector[N] y;
}
parameters {
  simplex[K] w;
  ordered[K] mu;
  vector<lower=0>[K] sigma;
}
model {
  mu ~ normal(0, 3);
  sigma ~ lognormal(0, 0.5);
  for (n in 1 : N) {
    vector[K] lp = log(w);
    for (k in 1 : K) {
      lp[k] += normal_lpdf(y[n] | mu[k], sigma[k]);
    }
    target += log_sum_exp(lp);
  }
}
