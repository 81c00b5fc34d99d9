// Eight schools, centred: the same model as eight_schools.stan, with a funnel between theta and tau.
data {
  int<lower=0> J;          // schools
  vector[J] y;             // estimated effect of coaching
  vector<lower=0>[J] sigma; // its standard error
}
parameters {
  real mu;
  real<lower=0> tau;
  vector[J] theta;
}
model {
  mu ~ normal(0, 5);
  tau ~ cauchy(0, 5);
  theta ~ normal(mu, tau);
  y ~ normal(theta, sigma);
}
generated quantities {
  vector[J] log_lik;
  array[J] real y_rep = normal_rng(theta, sigma);
  for (j in 1 : J) {
    log_lik[j] = normal_lpdf(y[j] | theta[j], sigma[j]);
  }
}
