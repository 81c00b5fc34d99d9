// DINA with attributes that depend on an ability: a sum over all classes for every person.
data {
  int<lower=1> I;
  int<lower=1> J;
  int<lower=1> K;
  int<lower=1> C;
  matrix<lower=0, upper=1>[J, K] Q;
  matrix<lower=0, upper=1>[C, K] alpha;
  array[I, J] int<lower=0, upper=1> y;
}
transformed data {
  matrix[J, C] mastered;
  for (j in 1:J)
    for (c in 1:C)
      mastered[j, c] = dot_product(Q[j], 1 - alpha[c]) == 0;
}
parameters {
  vector<lower=0, upper=1>[J] slip;
  vector<lower=0, upper=1>[J] guess;
  vector[K] difficulty;
  vector<lower=0>[K] slope;
  vector[I] theta;
}
model {
  slip ~ beta(5, 25);
  guess ~ beta(5, 25);
  difficulty ~ normal(0, 1);
  slope ~ lognormal(0, 0.5);
  theta ~ std_normal();
  for (i in 1:I) {
    vector[C] terms;
    for (c in 1:C) {
      terms[c] = 0;
      for (k in 1:K)
        terms[c] += log_inv_logit((2 * alpha[c, k] - 1) * slope[k] * (theta[i] - difficulty[k]));
      for (j in 1:J) {
        real p = mastered[j, c] > 0 ? 1 - slip[j] : guess[j];
        terms[c] += y[i, j] ? log(p) : log1m(p);
      }
    }
    target += log_sum_exp(terms);
  }
}
