"""From a method to a fit: stages, chains, curvature."""
