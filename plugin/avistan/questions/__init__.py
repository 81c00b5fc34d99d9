"""Questions about the units of a fit, answered from its draws."""
