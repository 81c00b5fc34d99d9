"""What a fit says: draws, trees, new units, corrections."""
