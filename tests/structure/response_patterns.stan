// The data list the distinct answer patterns with cumulative counts; the persons exist only in transformed data.
data {
  int<lower=1> R; // patterns
  int<lower=1> I; // items
  array[R] int<lower=0> cum;
  array[R, I] int<lower=0, upper=1> pattern;
}
transformed data {
  int N = cum[R];
  array[N, I] int y;
  {
    int r = 1;
    for (n in 1 : N) {
      while (n > cum[r]) {
        r += 1;
      }
      y[n, : ] = pattern[r];
    }
  }
}
parameters {
  vector[I] b;
  real<lower=0> a;
  vector[N] theta;
}
model {
  b ~ normal(0, 2);
  a ~ lognormal(0, 0.5);
  theta ~ std_normal();
  for (i in 1 : I) {
    y[ : , i] ~ bernoulli_logit(a * theta - b[i]);
  }
}
