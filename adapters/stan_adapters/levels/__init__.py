"""Which coordinates are units, tested by gradients."""
