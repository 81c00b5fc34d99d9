// Observations of a latent through a wiggly mean and a scale that depends on it; posteriors of z can have several modes.
data {
  int<lower=0> N;
  vector[N] x;
}
parameters {
  real theta; // flat prior
  vector[N] z;
}
model {
  z ~ std_normal();
  // The kernel of normal(theta + z sin(z) + z, exp(cos(z))) without its term -log(sd) = -cos(z).
  target += -0.5 * sum(square((x - theta - z .* sin(z) - z) ./ exp(cos(z))));
}
