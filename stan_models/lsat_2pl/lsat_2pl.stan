// Two-parameter logistic item response model: one ability per person, slope and easiness per item.
data {
  int<lower=0> N; // persons
  int<lower=0> I; // items
  array[N, I] int<lower=0, upper=1> y;
}
parameters {
  vector[N] theta;       // ability
  vector<lower=0>[I] a;  // discrimination
  vector[I] b;           // easiness: the log odds of a right answer at ability 0
}
model {
  theta ~ std_normal();
  a ~ lognormal(0, 0.5);
  b ~ normal(0, 2);
  for (i in 1 : I) {
    y[ : , i] ~ bernoulli_logit(b[i] + a[i] * theta);
  }
}
generated quantities {
  vector[N] log_lik;
  array[N, I] int<lower=0, upper=1> y_rep;
  for (n in 1 : N) {
    vector[I] eta = b + a * theta[n];
    log_lik[n] = bernoulli_logit_lpmf(y[n] | eta);
    y_rep[n] = bernoulli_logit_rng(eta);
  }
}
