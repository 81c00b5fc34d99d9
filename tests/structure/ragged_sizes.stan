// Groups of unequal length, given by their sizes; a running position finds the rows.
data {
  int<lower=0> N;
  int<lower=0> J;
  array[J] int<lower=0> size_of;
  vector[N] x;
  vector[N] y;
}
parameters {
  real mu;
  real<lower=0> tau;
  real<lower=0> sigma;
  vector[J] slope;
}
model {
  int pos = 1;
  mu ~ normal(0, 2);
  tau ~ normal(0, 1);
  sigma ~ normal(0, 1);
  slope ~ normal(mu, tau);
  for (j in 1 : J) {
    segment(y, pos, size_of[j]) ~ normal(slope[j] * segment(x, pos, size_of[j]), sigma);
    pos += size_of[j];
  }
}
