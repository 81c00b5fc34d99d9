// As many raters as items, under two sizes: two levels that meet in every row.
data {
  int<lower=1> I;
  int<lower=1> R;
  array[I, R] int<lower=0, upper=1> y;
}
parameters {
  vector[I] ability;
  vector[R] severity;
}
model {
  ability ~ normal(0, 1.5);
  severity ~ std_normal();
  for (i in 1:I)
    y[i] ~ bernoulli_logit(ability[i] - severity);
}
