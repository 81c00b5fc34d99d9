"""Stan's log density as a JAX operation."""
