"""The version of avistan, and those of what computes its results."""

from __future__ import annotations

__version__ = "0.1.0"
_LIBRARIES = (
    "jax",
    "jaxlib",
    "equinox",
    "optax",
    "numpy",
    "scipy",
    "arviz-stats",
    "orbax-checkpoint",
    "stanli",
    "bridgestan",
)


def versions() -> dict[str, str]:
    """Versions of avistan, Python and the libraries that compute a result, by name; without those not installed."""
    import importlib.metadata  # here, because `import avistan` reads its own version and should stay quick
    import platform

    found = {"avistan": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
