"""A bank of Stan constructs with the values that they must have, as data: see `cases`."""
