// Students in classes: student effects separate once the class effects are held fixed.
data {
  int<lower=0> N; // answers
  int<lower=0> S; // students
  int<lower=0> C; // classes
  array[S] int<lower=1, upper=C> class_of;
  array[N] int<lower=1, upper=S> student;
  vector[N] y;
}
parameters {
  real mu;
  real<lower=0> tau_class;
  real<lower=0> tau_student;
  real<lower=0> sigma;
  vector[C] v;
  vector[S] u;
}
model {
  mu ~ normal(0, 2);
  tau_class ~ normal(0, 1);
  tau_student ~ normal(0, 1);
  sigma ~ normal(0, 1);
  v ~ normal(mu, tau_class);
  u ~ normal(v[class_of], tau_student);
  y ~ normal(u[student], sigma);
}
