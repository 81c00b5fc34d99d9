// Two index arrays into one vector: every game joins two players.
data {
  int<lower=0> G; // games
  int<lower=0> J; // players
  array[G] int<lower=1, upper=J> winner;
  array[G] int<lower=1, upper=J> loser;
}
parameters {
  real<lower=0> tau;
  vector[J] strength;
}
model {
  tau ~ normal(0, 1);
  strength ~ normal(0, tau);
  target += log_inv_logit(strength[winner] - strength[loser]);
}
