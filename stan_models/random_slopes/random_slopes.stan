// Poisson regression with an intercept and a slope for every group; groups have 1 to 11 rows.
data {
  int<lower=0> N; // rows
  int<lower=0> J; // groups
  array[N] int<lower=1, upper=J> g;
  vector[N] x;
  array[N] int<lower=0> y;
}
parameters {
  vector[J] alpha;
  vector[J] beta;
  real mu_alpha;
  real mu_beta;
  real<lower=0> tau_alpha;
  real<lower=0> tau_beta;
}
model {
  mu_alpha ~ normal(0, 2);
  mu_beta ~ normal(0, 1);
  tau_alpha ~ normal(0, 1);
  tau_beta ~ normal(0, 1);
  alpha ~ normal(mu_alpha, tau_alpha);
  beta ~ normal(mu_beta, tau_beta);
  y ~ poisson_log(alpha[g] + beta[g] .* x);
}
generated quantities {
  vector[N] log_lik;
  for (n in 1 : N) {
    log_lik[n] = poisson_log_lpmf(y[n] | alpha[g[n]] + beta[g[n]] * x[n]);
  }
}
