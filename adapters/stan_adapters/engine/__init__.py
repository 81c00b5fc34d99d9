"""A program as a library behind the BridgeStan C ABI."""
