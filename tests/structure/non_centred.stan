// The parameter is standard normal and the unit's effect is a transformed parameter.
data {
  int<lower=0> N;
  vector[N] x;
}
parameters {
  real mu;
  real<lower=0> tau;
  vector[N] z;
}
transformed parameters {
  vector[N] theta = mu + tau * z;
}
model {
  mu ~ normal(0, 3);
  tau ~ normal(0, 2);
  z ~ std_normal();
  x ~ normal(theta, 0.7);
}
