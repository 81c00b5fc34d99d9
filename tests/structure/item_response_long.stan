// Crossed levels: persons separate with the items fixed and items with the persons fixed; the larger level is chosen.
data {
  int<lower=0> N; // answers
  int<lower=0> P; // persons
  int<lower=0> I; // items
  array[N] int<lower=1, upper=P> jj;
  array[N] int<lower=1, upper=I> ii;
  array[N] int<lower=0, upper=1> y;
}
parameters {
  vector[P] theta;
  vector<lower=0>[I] a;
  vector[I] b;
}
model {
  theta ~ std_normal();
  a ~ lognormal(0, 0.5);
  b ~ normal(0, 2);
  y ~ bernoulli_logit(a[ii] .* (theta[jj] - b[ii]));
}
