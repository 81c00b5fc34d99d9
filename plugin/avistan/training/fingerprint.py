"""What decides the bytes of a fit, by name, so that two runs can be told apart and the difference said."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import numpy.typing as npt

import stan_adapters
from avistan.density import handler
from avistan.density.backend import backend
from avistan.runtime.machine import num_processors, processor
from avistan.runtime.versions import versions
from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.levels.levels import Level

Arrays = Mapping[str, npt.NDArray[Any]]


def describe_fit(
    model: BoundModel, level: Level | None, *, method: str, options: Mapping[str, Any], seed: int
) -> dict[str, Any]:
    """Everything that decides the bytes of a fit, by name: strings and numbers, digests in place of long values."""
    return {
        "program": model.program.digest,
        "data": data_digests(model.data),
        "level": None if level is None else {"name": level.name, "latents": ", ".join(level.latents)},
        "method": method,
        "options": dict(options),
        "seed": seed,
        "engine": {"name": model.engine, "build": model.engine_info, "calls": backend()},
        "versions": versions() | {"avistan sources": _sources()},
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "processor": processor(),
            "processors": num_processors(),
            "device": jax.devices()[0].device_kind,
        },
        "jax settings": {
            "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
            "default_prng_impl": str(jax.config.jax_default_prng_impl),
            "threefry_partitionable": bool(jax.config.jax_threefry_partitionable),
            "default_matmul_precision": str(jax.config.jax_default_matmul_precision),
        },
    }


def data_digests(data: Mapping[str, Any]) -> dict[str, str]:
    """A digest of every data entry."""
    return {name: digest(_parts(value)) for name, value in data.items()}


def digest(arrays: Arrays) -> str:
    """SHA-256 of arrays with their names, types and shapes, shortened."""
    found = hashlib.sha256()
    for name, values in arrays.items():
        values = np.ascontiguousarray(values)
        found.update(f"{name} {values.dtype.str} {values.shape};".encode())
        found.update(values.data.cast("B") if values.size else b"")
    return found.hexdigest()[:32]


def _parts(value: Any, name: str = "") -> dict[str, npt.NDArray[Any]]:
    """The arrays of a data entry; Stan's tuples are nested."""
    if not isinstance(value, tuple | list):
        return {name: np.asarray(value)}
    parts: dict[str, npt.NDArray[Any]] = {name: np.asarray(len(value))}
    for position, item in enumerate(value, start=1):
        parts |= _parts(item, f"{name}.{position}")
    return parts


@functools.cache
def _sources() -> str:
    """Digest of the code itself: between releases its version says little."""
    found = hashlib.sha256()
    for package in (Path(stan_adapters.__file__).parent, Path(__file__).parents[1]):
        for file in sorted([*package.rglob("*.py"), *package.rglob("*.lark")]):
            found.update(f"{file.relative_to(package)};".encode())
            found.update(file.read_bytes())
    library = handler.library()
    found.update(Path(library._name).read_bytes() if library is not None else b"")
    return found.hexdigest()[:16]


def differences(
    saved: Mapping[str, Any], now: Mapping[str, Any], *, where: str = "the checkpoint"
) -> list[str]:
    """One line for every entry that is not the same in two nested records."""
    one, two = _flat(saved), _flat(now)
    missing = "none"
    return [
        f"  {name}: {one.get(name, missing)} in {where}, {two.get(name, missing)} now"
        for name in (one | two)
        if one.get(name, missing) != two.get(name, missing)
    ]


def _flat(record: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in record.items():
        flat |= _flat(value, f"{above}{name} ") if isinstance(value, Mapping) else {f"{above}{name}": value}
    return flat
