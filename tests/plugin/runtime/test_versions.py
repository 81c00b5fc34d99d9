"""Versions of what computes a result."""

import importlib.metadata

import avistan
from avistan.runtime import versions


def test_versions_name_what_is_installed():
    found = versions.versions()
    assert found["avistan"] == avistan.__version__
    assert found["jax"] == importlib.metadata.version("jax")


def test_a_library_that_is_not_installed_is_left_out(monkeypatch):
    monkeypatch.setattr(versions, "_LIBRARIES", ("numpy", "no-such-library"))
    assert set(versions.versions()) == {"avistan", "python", "numpy"}
