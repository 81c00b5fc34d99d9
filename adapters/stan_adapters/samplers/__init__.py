"""Other people's algorithms on a bound model."""
