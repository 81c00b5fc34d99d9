// A unit owns a row of y.
data {
  int<lower=0> N;
  int<lower=0> T;
  array[N, T] int<lower=0, upper=1> y;
}
parameters {
  vector[T] d;
  vector[N] theta;
}
model {
  d ~ normal(0, 2);
  theta ~ std_normal();
  for (t in 1 : T) {
    y[ : , t] ~ bernoulli_logit(theta - d[t]);
  }
}
