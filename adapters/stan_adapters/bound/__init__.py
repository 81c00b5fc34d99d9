"""A program with its data on the unconstrained scale."""
