// A unit's latent is an ordered vector: its own two cut points for three answers.
data {
  int<lower=0> N;
  int<lower=1> R;
  array[N, R] int<lower=1, upper=3> y;
}
parameters {
  real<lower=0> tau;
  array[N] ordered[2] cut;
}
model {
  tau ~ normal(0, 2);
  for (n in 1 : N) {
    cut[n] ~ normal(0, tau);
    y[n] ~ ordered_logistic(rep_vector(0, R), cut[n]);
  }
}
