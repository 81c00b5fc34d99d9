// A deep latent Gaussian model of images: a network with one hidden layer maps latent places to ink in each pixel.
data {
  int<lower=0> N; // images
  int<lower=1> P; // pixels
  matrix<lower=0, upper=16>[N, P] x;
  int<lower=1> D; // latent dimension
  int<lower=1> H; // width of the hidden layer
}
parameters {
  matrix[D, H] W1;
  row_vector[H] b1;
  matrix[H, P] W2;
  row_vector[P] b2;
  real<lower=0> sigma; // of a pixel around the network's ink
  matrix[N, D] z;
}
model {
  to_vector(W1) ~ std_normal();
  b1 ~ std_normal();
  to_vector(W2) ~ std_normal();
  b2 ~ std_normal();
  sigma ~ normal(0, 5);
  to_vector(z) ~ std_normal();
  matrix[N, H] h = tanh(z * W1 + rep_matrix(b1, N));
  to_vector(x) ~ normal(16 * inv_logit(to_vector(h * W2 + rep_matrix(b2, N))), sigma);
}
