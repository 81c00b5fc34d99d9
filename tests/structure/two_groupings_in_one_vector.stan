// Two groupings that cross: intercept and slope of each group, then an intercept of each class, in one flat vector.
data {
  int<lower=1> N;
  int<lower=1> t;
  array[t] int<lower=1> p;
  array[t] int<lower=1> l;
  int<lower=1> q;
  array[N] int<lower=1> group;
  array[N] int<lower=1> class_of;
  vector[N] x;
  vector[N] y;
}
parameters {
  real alpha;
  real beta;
  vector[q] z_b;
  vector<lower=0>[3] tau;
  real<lower=0> sigma;
}
transformed parameters {
  vector[q] b;
  {
    int at = 1;
    for (i in 1:t) {
      for (j in 1:l[i]) {
        for (k in 1:p[i]) {
          b[at] = tau[2 * (i - 1) + k] * (z_b[at] + (k == 1 ? 0 : 0.5 * z_b[at - 1]));
          at += 1;
        }
      }
    }
  }
}
model {
  alpha ~ normal(0, 1);
  beta ~ normal(0, 1);
  z_b ~ std_normal();
  tau ~ normal(0, 1);
  sigma ~ normal(0, 1);
  for (n in 1:N)
    y[n] ~ normal(alpha + b[2 * group[n] - 1] + (beta + b[2 * group[n]]) * x[n]
                  + b[2 * l[1] + class_of[n]], sigma);
}
