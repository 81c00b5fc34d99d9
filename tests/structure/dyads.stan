// Two directions of a pair lie at [i, j] and [j, i] of a matrix, and share a correlation; its diagonal has priors only.
data {
  int<lower=2> N;
  array[N, N] int<lower=0> y;
}
parameters {
  real mu;
  vector<lower=0>[2] sigma;
  real<lower=-1, upper=1> rho;
  matrix[2, N] sr;
  matrix[N, N] dr;
}
model {
  mu ~ normal(0, 1);
  sigma ~ normal(0, 1);
  to_vector(sr) ~ std_normal();
  to_vector(dr) ~ std_normal();
  for (i in 1:N) {
    for (j in 1:N) {
      if (i != j) {
        real effect = i < j ? dr[i, j] : rho * dr[j, i] + sqrt(1 - square(rho)) * dr[i, j];
        y[i, j] ~ poisson_log(mu + sigma[1] * (sr[1, i] + sr[2, j]) + sigma[2] * effect);
      }
    }
  }
}
