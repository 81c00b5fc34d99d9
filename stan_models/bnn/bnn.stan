// A Bayesian neural network with latent inputs: points near a curve in the plane, z[n] the place of point n along it.
data {
  int<lower=0> N;
  matrix[N, 2] x;
  int<lower=1> H; // width of the two hidden layers
  real<lower=0> sigma;
}
parameters {
  row_vector[H] W1;
  row_vector[H] b1;
  matrix[H, H] W2;
  row_vector[H] b2;
  matrix[H, 2] W3;
  row_vector[2] b3;
  vector[N] z;
}
model {
  W1 ~ std_normal();
  b1 ~ std_normal();
  to_vector(W2) ~ std_normal();
  b2 ~ std_normal();
  to_vector(W3) ~ std_normal();
  b3 ~ std_normal();
  z ~ std_normal();
  matrix[N, H] h1 = tanh(z * W1 + rep_matrix(b1, N));
  matrix[N, H] h2 = tanh(h1 * W2 + rep_matrix(b2, N));
  to_vector(x) ~ normal(to_vector(h2 * W3 + rep_matrix(b3, N)), sigma);
}
