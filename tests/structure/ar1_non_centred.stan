// Independent innovations a priori, but each one moves every later state: the likelihood couples them all.
data {
  int<lower=1> T;
  vector[T] y;
}
parameters {
  real<lower=-1, upper=1> phi;
  real<lower=0> tau;
  vector[T] eps;
}
transformed parameters {
  vector[T] h;
  h[1] = eps[1] * tau / sqrt(1 - square(phi));
  for (t in 2 : T) {
    h[t] = phi * h[t - 1] + tau * eps[t];
  }
}
model {
  tau ~ normal(0, 1);
  eps ~ std_normal();
  y ~ normal(h, 0.5);
}
