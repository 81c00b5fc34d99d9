// The sites are counted by three sizes, which switches may set to zero.
data {
  int<lower=1> J;
  int<lower=0, upper=1> with_base;
  int<lower=0, upper=1> with_effect;
  vector[J] effect;
  vector<lower=0>[J] se;
  vector[J] control;
}
transformed data {
  int J_effect = with_effect ? J : 0;
  int J_base = with_base ? J : 0;
}
parameters {
  real mu;
  real<lower=0> tau;
  vector[J_effect] theta;
  vector<lower=0>[J_base] base;
  vector[J] extra;
}
model {
  mu ~ normal(0, 2);
  tau ~ normal(0, 1);
  theta ~ normal(mu, tau);
  extra ~ normal(theta, 0.3);
  base ~ lognormal(0, 1);
  control ~ normal(base, se);
  effect ~ normal(theta .* base + extra, se);
}
