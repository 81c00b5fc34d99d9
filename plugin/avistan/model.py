"""`Model`: a Stan program and its data, ready to inspect, fit and compare."""

from __future__ import annotations

import contextlib
import difflib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import xarray as xr

from stan_adapters.binding import BoundModel
from stan_adapters.data import RawData, read_data
from stan_adapters.errors import AvistanError, StructureError
from stan_adapters.levels import Level
from stan_adapters.program import Program
from stan_adapters.structure import Structure, Verdict, inspect_structure, with_unit_data

from .checkpoints import Checkpoint, check_checkpoint_place
from .compare import Comparison, check_method, run_competition
from .competitors import REFERENCES, External, Reference
from .errors import FitError, MethodError
from .fit import Fit, fit_method
from .methods import Method, parse_method
from .options import FitOptions, make_options
from .preparation import Preparation, prepare
from .progress import bars, quiet
from .provenance import describe_fit

StrPath = str | os.PathLike[str]


class Model:
    """A Stan program and its data, unchanged.

    Args:
        stan_file: path of the program; or give its text as `stan_code`.
        data: a mapping of names to numpy, pandas, list or scalar values, or the path of a (gzipped) JSON file.
        engine: "auto", "stanli", "bridgestan" or the path of a prebuilt BridgeStan library.
        include_paths: folders in which `#include` looks first.
        level: the level to amortize, by its declared size or one of its latents; None chooses.
        slicing: rules for the data of a subset of units, by entry name, such as {"y": "row", "g": "index"}; entries
            without a rule get a proposed one. `inspect` verifies them all.

    Raises:
        ProgramError, DataError, EngineError: the program, the data or their engine, each with place and remedy.
    """

    def __init__(
        self,
        stan_file: StrPath | None = None,
        *,
        stan_code: str | None = None,
        data: RawData = None,
        engine: str = "auto",
        include_paths: Sequence[StrPath] = (),
        level: str | None = None,
        slicing: Mapping[str, str] | None = None,
    ) -> None:
        if (stan_file is None) == (stan_code is None):
            raise AvistanError("give the program either as stan_file= (a path) or as stan_code= (its text).")
        if stan_file is not None:
            self.program = Program.from_file(stan_file, include_paths)
        else:
            assert stan_code is not None
            self.program = Program.from_code(stan_code, include_paths=include_paths)
        self.data = read_data(self.program, data)
        self.bound = BoundModel(self.program, self.data, engine=engine)
        self._level_name = level
        self._slicing_rules = dict(slicing or {})
        self._structures: dict[tuple[str | None, int], Structure] = {}
        self._inspections: dict[tuple[str | None, int], Structure] = {}
        self._preparations: dict[tuple[Any, ...], tuple[Preparation, float]] = {}

    def __repr__(self) -> str:
        return f"Model({self.program.name}, {self.bound.dim} unconstrained parameters, engine={self.bound.engine})"

    def inspect(self, *, level: str | None = None, seed: int = 1) -> Structure:
        """The levels of units, the evidence for each, the verdict, and what data feed a unit. Prints as a table.

        Raises:
            StructureError: no finite density, no such level, or hand-given slicing rules that are wrong.
        """
        key = (level or self._level_name, seed)
        if key not in self._inspections:
            structure = self._structure(level, seed)
            self._inspections[key] = with_unit_data(
                self.bound, structure, rules=self._slicing_rules, seed=seed
            )
        return self._inspections[key]

    def _structure(self, level: str | None, seed: int = 1) -> Structure:
        """The verdict alone, which fits rest on."""
        key = (level or self._level_name, seed)
        if key not in self._structures:
            self._structures[key] = inspect_structure(self.bound, level=key[0], seed=seed)
        return self._structures[key]

    def fit(
        self,
        *,
        method: str = "auto",
        seed: int = 1,
        level: str | None = None,
        family: str | None = None,
        chains: int = 1,
        show_progress: bool = False,
        checkpoint: StrPath | None = None,
        resume: bool = False,
        **options: Any,
    ) -> Fit:
        """Fit by variational inference.

        Args:
            method: "auto" (A-VI where the verdict is `closable`, else F-VI, with the reason), or a method's name:
                "avi", "avi:mlp(32)", "avi:polynomial(2)", "avi:data(x)", "fvi", "constant", each also with ":full".
            seed: repeats the result to the byte on one machine.
            level: the level to amortize, by its declared size or one of its latents.
            family: "auto" lets the family grow beyond the method's own (correlations within units and of the globals,
                units that follow the globals) while the ELBO pays for it; "fixed" does not. Default: "auto" with the
                method "auto", else "fixed".
            chains: independent restarts; each becomes a chain of the posterior.
            show_progress: a progress bar on standard error.
            checkpoint: a folder in which long training is saved every few seconds. It is kept, and may be deleted when
                the fit is saved.
            resume: continue what `checkpoint` holds, to the same bytes as without the interruption.
            options: fields of `FitOptions`, such as steps, draws_per_step or learning_rate.

        Raises:
            MethodError: an unknown method or option.
            StartError, StructureError: nowhere to start, no such level.
            CheckpointError: the checkpoint is of another fit, damaged, in use, or there and not to be resumed.
        """
        chosen_options = make_options(options)
        if checkpoint is not None:
            check_checkpoint_place(checkpoint, resume=resume)
        elif resume:
            raise FitError("resume=True continues a checkpoint: give its folder as checkpoint=.")
        if family not in (None, "auto", "fixed"):
            raise MethodError(f"unknown family {family!r}: choose 'auto' or 'fixed', or name one in method=.")
        if isinstance(chains, bool) or chains < 1:
            raise MethodError(f"chains={chains!r}: give a positive whole number.")
        structure = self._structure(level)
        parsed, reason = self._resolve(method, structure)
        preparation, seconds = self._prepare(self._level_for(parsed, structure), seed, chosen_options)
        if method == "auto" and parsed.amortized:
            try:
                preparation.unit_input(parsed)
            except StructureError as error:
                parsed, reason = parse_method("fvi"), f"F-VI, because the units have no signatures: {error}"
        with contextlib.ExitStack() as stack:
            saves = None
            if checkpoint is not None:
                fitted = describe_fit(
                    self.bound,
                    preparation.level,
                    method=parsed.name,
                    options=asdict(chosen_options),
                    seed=seed,
                )
                fitted |= {"family": family or "", "chains": chains}
                saves = stack.enter_context(Checkpoint(checkpoint, fitted, resume=resume))
            progress = stack.enter_context(bars() if show_progress else quiet())
            return fit_method(
                preparation,
                parsed,
                chosen_options,
                reason=reason,
                seconds_prepare=seconds,
                progress=progress(parsed.name),
                checkpoint=saves,
                chains=chains,
                grow=(family or ("auto" if method == "auto" else "fixed")) == "auto",
                certificate=structure.certificate,
            )

    def compare(
        self,
        methods: Sequence[str] = ("avi", "fvi", "constant"),
        *,
        reference: str | StrPath | xr.DataTree | Reference | None = None,
        seed: int = 1,
        repeats: int = 1,
        level: str | None = None,
        cmdstan_exe: StrPath | None = None,
        show_progress: bool = False,
        reference_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Comparison:
        """Fit several methods from one start and measure them on the same draws.

        Args:
            methods: names as in `fit`, and "cmdstan-advi", "cmdstan-pathfinder", "pathfinder".
            reference: "nuts" (stanli's sampler), "cmdstan-nuts", a DataTree or the path of a netCDF file with a group
                `posterior`, a `Reference`, or None.
            repeats: how many seeds, counted up from `seed`; the first gives the table, the others its spread.
            cmdstan_exe: the program compiled by CmdStan; without it a CmdStan installation compiles it when needed.
            reference_options: for NUTS: chains, warmup, draws.

        Raises:
            MethodError: a name that is no method or reference, before anything runs.
            AvistanError: the reference failed, with its reason.
        """
        chosen_options = make_options(options)
        for name in methods:
            check_method(name)
        if isinstance(repeats, bool) or repeats < 1:
            raise MethodError(f"repeats={repeats!r}: give a positive whole number.")
        if isinstance(reference, str):
            _check_reference(reference)
        structure = self._structure(level)
        target = self._level_for(parse_method("avi"), structure)
        with (
            External(self.bound, cmdstan_exe=cmdstan_exe) as external,
            bars() if show_progress else quiet() as progress,
        ):
            if reference is not None and not isinstance(reference, Reference):
                waiting = progress("reference" if isinstance(reference, xr.DataTree) else str(reference))
                reference = external.reference(reference, seed=seed, **dict(reference_options or {}))
                if waiting is not None:
                    waiting(1, 1, float("nan"))
            return run_competition(
                [self._prepare(target, seed + number, chosen_options) for number in range(repeats)],
                methods,
                chosen_options,
                structure=structure,
                external=external,
                reference=reference,
                progress=progress,
            )

    # -- inside -------------------------------------------------------------------------------------------------

    def _resolve(self, method: str, structure: Structure) -> tuple[Method, str]:
        if method == "auto":
            if structure.verdict is Verdict.CLOSABLE:
                return parse_method("avi"), ""
            reason = f"F-VI, because amortization is {structure.verdict}: {structure.reason}"
            return parse_method("fvi"), reason
        parsed = parse_method(method)
        if parsed.amortized and structure.verdict is not Verdict.CLOSABLE:
            return parsed, f"The gap to F-VI can't close here ({structure.verdict}): {structure.reason}"
        return parsed, ""

    def _level_for(self, method: Method, structure: Structure) -> Level | None:
        """The chosen level; for a method that insists on one where none is closable, the largest coupled one."""
        if structure.level is not None:
            return structure.level
        if method.function == "table":
            return None
        coupled = [c.level for c in structure.candidates if c.has_rows] or [
            c.level for c in structure.candidates
        ]
        return coupled[0] if coupled else None

    def _prepare(self, level: Level | None, seed: int, options: FitOptions) -> tuple[Preparation, float]:
        key = (
            None if level is None else (level.name, level.latents),
            seed,
            options.num_references,
            options.max_rank,
        )
        if key not in self._preparations:
            started = time.perf_counter()
            made = prepare(
                self.bound, level, seed=seed, num_references=options.num_references, max_rank=options.max_rank
            )
            self._preparations[key] = (made, time.perf_counter() - started)
        return self._preparations[key]


def _check_reference(name: str) -> None:
    """That a text names a reference or a file.

    Raises:
        MethodError: it does neither.
    """
    if name in REFERENCES or os.path.exists(name):
        return
    near = difflib.get_close_matches(name, REFERENCES, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise MethodError(
        f"unknown reference {name!r}.{hint} References: {', '.join(REFERENCES)}, or the path of a netCDF file."
    )
