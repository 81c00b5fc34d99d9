"""Where the example models that come with avistan are."""

from __future__ import annotations

from pathlib import Path


def models_root() -> Path:
    """The folder of the bundled examples, one subfolder each: in a checkout, or in an installed package.

    Raises:
        FileNotFoundError: the installation is incomplete.
    """
    here = Path(__file__).resolve().parents[1]
    checkout = here.parents[1]
    for folder in (checkout / "stan_models", here / "_models"):
        if folder.is_dir() and (folder.name == "_models" or (checkout / "pyproject.toml").is_file()):
            return folder
    raise FileNotFoundError(f"the example models are not beside {here}: reinstall avistan.")
