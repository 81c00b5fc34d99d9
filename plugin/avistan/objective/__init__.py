"""The ELBO: its gradient, its value, its weights."""
