"""Errors of the JAX side; those of the Stan side are in `stan_adapters.errors`. All derive from `AvistanError`."""

from __future__ import annotations

from stan_adapters.errors import AvistanError as AvistanError


class MethodError(AvistanError):
    """A method, family or inference function was named that does not exist or can't serve this program."""


class FitError(AvistanError):
    """A fit can't do what was asked: predict from a table, continue after a failure, read a damaged folder."""


class CompetitorError(AvistanError):
    """An external method or reference failed; the message is its reason."""
