"""Densities of single units through gradients of the whole."""
