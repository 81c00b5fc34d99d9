// Cormack-Jolly-Seber with survival of each animal: first and last captures are found in transformed data.
functions {
  vector never_again(int T, real phi, real p) {
    vector[T] chi;
    chi[T] = 1;
    for (back in 1:(T - 1)) {
      int t = T - back;
      chi[t] = (1 - phi) + phi * (1 - p) * chi[t + 1];
    }
    return chi;
  }
}
data {
  int<lower=0> nind;
  int<lower=2> T;
  array[nind, T] int<lower=0, upper=1> y;
}
transformed data {
  array[nind] int first = rep_array(0, nind);
  array[nind] int last = rep_array(0, nind);
  for (i in 1:nind) {
    for (t in 1:T) {
      if (y[i, t] == 1) {
        if (first[i] == 0)
          first[i] = t;
        last[i] = t;
      }
    }
  }
}
parameters {
  real mu;
  real<lower=0> sigma;
  real<lower=0, upper=1> p;
  vector[nind] epsilon;
}
model {
  mu ~ normal(0, 1);
  sigma ~ normal(0, 1);
  epsilon ~ normal(0, sigma);
  for (i in 1:nind) {
    if (first[i] > 0) {
      real phi = inv_logit(mu + epsilon[i]);
      vector[T] chi = never_again(T, phi, p);
      target += (last[i] - first[i]) * log(phi);
      for (t in 1:T)
        if (t > first[i] && t <= last[i])
          target += y[i, t] == 1 ? log(p) : log1m(p);
      target += log(chi[last[i]]);
    }
  }
}
