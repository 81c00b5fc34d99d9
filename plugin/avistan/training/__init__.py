"""One family, one objective, until it no longer pays."""
