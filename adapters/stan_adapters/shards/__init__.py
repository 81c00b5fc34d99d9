"""Minibatches of units."""
