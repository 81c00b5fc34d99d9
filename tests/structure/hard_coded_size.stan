// The number of units is a literal, not an entry of the data.
data {
  vector[12] x;
}
parameters {
  real mu;
  vector[12] z;
}
model {
  mu ~ normal(0, 2);
  z ~ normal(mu, 1);
  x ~ normal(z, 0.5);
}
