// Missing outcomes are parameters, more of them than there are rows: the rows are units, to which they belong.
data {
  int<lower=1> N;
  int<lower=1> T;
  int<lower=0> N_mis;
  matrix[N, T] y;
  array[N_mis] int<lower=1, upper=N> row;
  array[N_mis] int<lower=1, upper=T> col;
}
parameters {
  real mu;
  real<lower=0> sigma;
  vector[N] z;
  vector[N_mis] y_mis;
}
model {
  matrix[N, T] full = y;
  for (m in 1:N_mis)
    full[row[m], col[m]] = y_mis[m];
  mu ~ normal(0, 1);
  sigma ~ normal(0, 1);
  z ~ normal(mu, 1);
  for (n in 1:N)
    full[n] ~ normal(z[n], sigma);
}
