"""A fit as a folder: JSON header, arrays without pickle, the program and its data. Written whole or not at all."""

from __future__ import annotations

import importlib.metadata
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import equinox as eqx
import numpy as np

from stan_adapters.binding import BoundModel
from stan_adapters.data import read_data
from stan_adapters.levels import Member, make_level
from stan_adapters.program import Program
from stan_adapters.signature import References, SignatureTransform

from .errors import FitError
from .evaluation import Evaluation
from .families import make_placement
from .fit import Fit, FitOptions, Timing
from .methods import parse_method
from .places import whole_folder
from .precision import in_float64
from .preparation import DataInput, SignatureInput, UnitInput, skeleton
from .training import Trace

_FORMAT = 1
_HEADER, _FAMILY, _ARRAYS = "fit.json", "family.eqx", "arrays.npz"
_PROGRAM, _DATA = "program.stan", "data.json"

FIT_FILES = (_HEADER, _FAMILY, _ARRAYS, _PROGRAM, _DATA, "posterior.nc")  # the last one is the command line's


def versions() -> dict[str, str]:
    """Versions of what computes a result."""
    return {name: importlib.metadata.version(name) for name in ("avistan", "jax", "equinox", "stanli", "bridgestan")}


@in_float64
def save_fit(fit: Fit, path: str | os.PathLike[str]) -> None:
    """Write a fit to a folder.

    Raises:
        FitError: the path holds something else.
    """
    header = {
        "format": _FORMAT,
        "program": fit.model.program.name,
        "program_digest": fit.model.program.digest,
        "engine": fit.model.engine_choice,
        "method": fit.method.name,
        "options": asdict(fit.options),
        "seed": fit.seed,
        "reason": fit.reason,
        "outcome": fit.outcome.name,
        "elbo": fit.elbo,
        "elbo_se": fit.elbo_se,
        "level": None
        if fit.level is None
        else {"name": fit.level.name, "members": [[m.name, m.axis] for m in fit.level.members]},
        "input": None if fit.unit_input is None else type(fit.unit_input).__name__,
        "input_names": list(fit.unit_input.names) if isinstance(fit.unit_input, DataInput) else [],
        "timing": asdict(fit.timing),
        "seconds_compile": fit.trace.seconds_compile,
        "gradient_evaluations": fit.gradient_evaluations,
        "versions": versions(),
    }
    arrays: dict[str, Any] = {
        "inputs": fit.inputs,
        "log_weights": fit.evaluation.log_weights,
        "trace_elbo": fit.trace.elbo,
        "trace_num_rejected": fit.trace.num_rejected,
        "trace_chunk_steps": fit.trace.chunk_steps,
        "trace_seconds": fit.trace.seconds,
    }
    if isinstance(fit.unit_input, SignatureInput):
        arrays |= {f"references_{k}": getattr(fit.unit_input.references, k) for k in ("theta", "z")}
        names = ("center", "scale", "heavy", "mean", "components")
        arrays |= {f"transform_{k}": getattr(fit.unit_input.transform, k) for k in names}
    elif isinstance(fit.unit_input, DataInput):
        arrays |= {"data_mean": fit.unit_input.mean, "data_sd": fit.unit_input.sd}
    with whole_folder(path, FIT_FILES) as folder:
        (folder / _PROGRAM).write_text(fit.model.program.source)
        (folder / _DATA).write_text(fit.model.data.to_json())
        np.savez(folder / _ARRAYS, **arrays)
        eqx.tree_serialise_leaves(folder / _FAMILY, (fit.family.globals, fit.family.inference, fit.family.frame))
        (folder / _HEADER).write_text(json.dumps(header, indent=2))


@in_float64
def load_fit(path: str | os.PathLike[str]) -> Fit:
    """Read a fit that `Fit.save` wrote; its program and data come with it.

    Raises:
        FitError: the folder is no saved fit, is damaged, or was written by another format.
    """
    folder = Path(path)
    if not (folder / _HEADER).is_file():
        raise FitError(f"{folder} is not a saved fit: it has no {_HEADER}. Save one with fit.save(path).")
    try:
        header = json.loads((folder / _HEADER).read_text())
        if header["format"] != _FORMAT:
            raise FitError(f"{folder} has format {header['format']}, this version of avistan reads {_FORMAT}.")
        with np.load(folder / _ARRAYS, allow_pickle=False) as file:
            arrays = dict(file)
        program = Program.from_code((folder / _PROGRAM).read_text(), name=header["program"])
        if program.digest != header["program_digest"]:
            raise FitError(f"{folder / _PROGRAM} is not the program of this fit: its text was changed.")
        model = BoundModel(program, read_data(program, folder / _DATA), engine=header["engine"])
        return _assemble(folder, header, arrays, model)
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise FitError(f"{folder} is damaged: {type(error).__name__}: {error}. Fit and save again.") from error


def _assemble(folder: Path, header: dict[str, Any], arrays: dict[str, Any], model: BoundModel) -> Fit:
    level = None
    if header["level"] is not None:
        members = [Member(name, axis) for name, axis in header["level"]["members"]]
        level = make_level(model.layout, header["level"]["name"], members)
    index = np.empty((0, 0), dtype=np.int64) if level is None else level.index
    at = np.arange(model.dim) if level is None else level.globals_index(model.dim)
    method = parse_method(header["method"])
    inputs = arrays["inputs"]
    empty = skeleton(
        method, num_units=len(index), block=index.shape[1], num_globals=len(at), num_inputs=inputs.shape[1]
    )
    leaves = eqx.tree_deserialise_leaves(folder / _FAMILY, (empty.globals, empty.inference, empty.frame))
    family = eqx.tree_at(
        lambda f: (f.globals, f.inference, f.frame, f.placement), empty, (*leaves, make_placement(at, index))
    )
    trace = Trace(
        elbo=arrays["trace_elbo"],
        num_rejected=arrays["trace_num_rejected"],
        chunk_steps=arrays["trace_chunk_steps"],
        seconds=arrays["trace_seconds"],
        seconds_compile=header["seconds_compile"],
    )
    return Fit(
        model=model,
        level=level,
        method=method,
        options=FitOptions(**header["options"]),
        seed=header["seed"],
        reason=header["reason"],
        family=family,
        unit_input=_unit_input(header, arrays),
        inputs=inputs,
        trace=trace,
        evaluation=Evaluation(arrays["log_weights"]),
        timing=Timing(**header["timing"]),
        gradient_evaluations=header["gradient_evaluations"],
    )


def _unit_input(header: dict[str, Any], arrays: dict[str, Any]) -> UnitInput | None:
    if header["input"] == SignatureInput.__name__:
        names = ("center", "scale", "heavy", "mean", "components")
        transform = SignatureTransform(*(arrays[f"transform_{name}"] for name in names))
        return SignatureInput(References(arrays["references_theta"], arrays["references_z"]), transform)
    if header["input"] == DataInput.__name__:
        return DataInput(tuple(header["input_names"]), arrays["data_mean"], arrays["data_sd"])
    return None
