// One meta-analysis under several priors side by side: what has an entry per prior shares all the data.
data {
  int<lower=1> N_studies;
  int<lower=1> N_priors;
  vector[N_studies] y;
  vector<lower=0>[N_studies] se;
  vector<lower=0>[N_priors] scale;
}
parameters {
  vector[N_priors] mu;
  vector<lower=0>[N_priors] tau;
  array[N_priors] vector[N_studies] theta;
}
model {
  for (p in 1:N_priors) {
    mu[p] ~ normal(0, 5);
    tau[p] ~ normal(0, scale[p]);
    theta[p] ~ normal(mu[p], tau[p]);
    y ~ normal(theta[p], se);
  }
}
