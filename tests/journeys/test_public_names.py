"""The package's face: its names are loaded when they are first used."""

import os
import subprocess
import sys

import avistan

HEAVY = ("jax", "numpy", "scipy", "pandas", "xarray", "arviz_base", "arviz_stats", "stanli", "bridgestan")


def test_importing_the_package_loads_no_library():
    code = f"import sys, avistan; print([name for name in {HEAVY} if name in sys.modules])"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there_and_listed():
    assert set(avistan.__all__) <= set(dir(avistan))
    for name in avistan.__all__:
        assert getattr(avistan, name).__name__ == name
