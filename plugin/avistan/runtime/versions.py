"""The version of avistan."""

__version__ = "0.1.0"
