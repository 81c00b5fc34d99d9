// Presence is summed out: a site without detections is absent or missed. Two latents per site.
data {
  int<lower=0> S; // sites
  int<lower=1> V; // visits
  array[S, V] int<lower=0, upper=1> y;
}
parameters {
  real mu_psi;
  real mu_p;
  real<lower=0> tau_psi;
  real<lower=0> tau_p;
  vector[S] u;
  vector[S] v;
}
model {
  mu_psi ~ normal(0, 1);
  mu_p ~ normal(0, 1);
  tau_psi ~ normal(0, 1);
  tau_p ~ normal(0, 1);
  u ~ normal(mu_psi, tau_psi);
  v ~ normal(mu_p, tau_p);
  for (s in 1 : S) {
    real present = bernoulli_logit_lpmf(1 | u[s]) + bernoulli_logit_lpmf(y[s] | v[s]);
    if (sum(y[s]) > 0) {
      target += present;
    } else {
      target += log_sum_exp(present, bernoulli_logit_lpmf(0 | u[s]));
    }
  }
}
