// Intercept and slope of each group side by side in one flat vector.
data {
  int<lower=1> N;
  int<lower=1> J;
  array[N] int<lower=1, upper=J> group;
  vector[N] x;
  array[N] int<lower=0> y;
}
transformed data {
  int q = 2 * J;
}
parameters {
  real alpha;
  real beta;
  vector<lower=0>[2] tau;
  real<lower=-1, upper=1> rho;
  vector[q] z;
}
transformed parameters {
  vector[q] b;
  for (j in 1:J) {
    b[2 * j - 1] = tau[1] * z[2 * j - 1];
    b[2 * j] = tau[2] * (rho * z[2 * j - 1] + sqrt(1 - square(rho)) * z[2 * j]);
  }
}
model {
  alpha ~ normal(0, 2);
  beta ~ normal(0, 2);
  tau ~ normal(0, 1);
  z ~ std_normal();
  for (n in 1:N)
    y[n] ~ poisson_log(alpha + b[2 * group[n] - 1] + (beta + b[2 * group[n]]) * x[n]);
}
