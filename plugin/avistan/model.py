"""`Model`: a Stan program and its data, ready to inspect, fit and compare."""

from __future__ import annotations

import contextlib
import difflib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stan_adapters.binding import BoundModel
from stan_adapters.candidates import Candidate
from stan_adapters.errors import AvistanError, StructureError
from stan_adapters.levels import Level
from stan_adapters.program import Program
from stan_adapters.reasons import listed
from stan_adapters.shards import FEWEST_UNITS, minibatches_pay
from stan_adapters.sources import DataSource, read
from stan_adapters.structure import Structure, Verdict, inspect_structure, with_unit_data
from stan_adapters.unit_data import Slicing

from .blas_threads import one_blas_thread
from .chain_start import MAX_GLOBALS
from .checkpoints import Checkpoint, check_checkpoint_place
from .errors import FitError, MethodError
from .fit import Fit, fit_method
from .large_preparation import prepare_large
from .methods import MAX_REACH, Method, parse_method
from .options import FitOptions, make_options
from .preparation import Preparation, prepare
from .progress import bars, quiet, shown
from .provenance import describe_fit

if TYPE_CHECKING:  # a fit alone does not need the competition
    import xarray as xr

    from .compare import Comparison
    from .references import Reference

StrPath = str | os.PathLike[str]
MOST_FREE_UNITS = 200  # of a second level that `auto` leaves without a function of its own


class Model:
    """A Stan program and its data, unchanged.

    Args:
        stan_file: path of the program; or give its text as `stan_code`.
        data: a mapping of names to numpy, pandas, list or scalar values, or the path of a (gzipped) JSON file; or files
            that hold some of the units each, as a list or a pattern ("parts/*.json"); or tables (*.parquet, with JSON
            beside them, or *.zarr). See `stan_adapters.sources`.
        engine: "auto", "stanli", "bridgestan" or the path of a prebuilt BridgeStan library.
        include_paths: folders in which `#include` looks first.
        level: the level to amortize, by its declared size or one of its latents; None chooses. It also says whose units
            several data files hold, where that is not clear.
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
        data: DataSource = None,
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
        self.data = read(self.program, data, level=level, rules=slicing)
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
        show_progress: bool | None = None,
        checkpoint: StrPath | None = None,
        resume: bool = False,
        **options: Any,
    ) -> Fit:
        """Fit by variational inference.

        Args:
            method: "auto" (A-VI where the verdict is `closable`, else F-VI, with the reason), or a method's name:
                "avi", "avi:mlp(32)", "avi:polynomial(2)", "avi:data(x)", "fvi", "constant", each also with ":full";
                "avi:levels", which amortizes a second level too ("auto" does where that has more than 200 units, and so
                does family="auto"); "fvi:banded" for units that are coupled along their axis. See
                `methods.parse_method`.
            seed: repeats the result to the byte on one machine.
            level: the level to amortize, by its declared size or one of its latents.
            family: "auto" lets the family grow beyond the method's own (correlations within units, along the axis of
                coupled units, and of the globals; units that follow the globals) while the ELBO pays for it, and gives
                a second level of more than 200 units a function of its own, unless the method names what this rules
                out or narrows (:full-rank, :low-rank, :banded, :conditional, :flow); "fixed" does not. Default: "auto"
                with the method "auto", else "fixed".
            chains: independent restarts; each becomes a chain of the posterior.
            show_progress: a progress bar on standard error; by default where that is a terminal.
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
        self._check_fittable(seed)
        if checkpoint is not None:
            check_checkpoint_place(checkpoint, resume=resume)
        elif resume:
            raise FitError("resume=True continues a checkpoint: give its folder as checkpoint=.")
        if family not in (None, "auto", "fixed"):
            raise MethodError(f"unknown family {family!r}: choose 'auto' or 'fixed', or name one in method=.")
        if isinstance(chains, bool) or chains < 1:
            raise MethodError(f"chains={chains!r}: give a positive whole number.")
        structure = self._structure(level)
        grow = (family or ("auto" if method == "auto" else "fixed")) == "auto"
        parsed, reason = self._resolve(method, structure, grow=grow)
        target, named = self._level_for(parsed, structure), method != "auto"
        needs = {
            "whole": _needs_whole([parsed] if named else [], chosen_options),
            "settled": parsed.second is not None,
        }
        preparation, seconds = self._prepare(target, structure, seed, chosen_options, **needs)
        parsed, reason = _readable(preparation, parsed, reason, asked=method)
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
            progress = stack.enter_context(bars() if shown(show_progress) else quiet())
            return fit_method(
                preparation,
                parsed,
                chosen_options,
                reason=reason,
                seconds_prepare=seconds,
                progress=progress(parsed.name),
                checkpoint=saves,
                chains=chains,
                grow=grow,
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
        show_progress: bool | None = None,
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
        import xarray as xr

        from .compare import check_method, run_competition
        from .competitors import COMPETITORS, External, Reference

        chosen_options = make_options(options)
        self._check_fittable(seed)
        if isinstance(methods, str):
            raise MethodError(f"methods={methods!r}: give a list of names, such as [{methods!r}, 'fvi'].")
        for name in methods:
            check_method(name)
        if isinstance(repeats, bool) or repeats < 1:
            raise MethodError(f"repeats={repeats!r}: give a positive whole number.")
        if isinstance(reference, str):
            _check_reference(reference)
        structure = self._structure(level)
        parsed = [parse_method(name) for name in methods if name not in COMPETITORS]
        banded = next((method for method in parsed if method.reach), parse_method("avi"))
        target = self._level_for(banded, structure)
        needs = {
            "whole": _needs_whole(parsed, chosen_options),
            "settled": any(method.second is not None for method in parsed),
        }
        with (
            External(self.bound, cmdstan_exe=cmdstan_exe) as external,
            bars() if shown(show_progress) else quiet() as progress,
        ):
            if reference is not None and not isinstance(reference, Reference):
                waiting = progress("reference" if isinstance(reference, xr.DataTree) else str(reference))
                reference = external.reference(reference, seed=seed, **dict(reference_options or {}))
                if waiting is not None:
                    waiting(1, 1, float("nan"))
            return run_competition(
                [
                    self._prepare(target, structure, seed + number, chosen_options, **needs)
                    for number in range(repeats)
                ],
                methods,
                chosen_options,
                structure=structure,
                external=external,
                reference=reference,
                progress=progress,
            )

    # -- inside -------------------------------------------------------------------------------------------------

    def _check_fittable(self, seed: int) -> None:
        """That there is something to fit, and that the seed is one.

        Raises:
            FitError: no parameters, or no such seed.
        """
        if not self.bound.dim:
            raise FitError(
                f"{self.program.name} declares no parameters with free values: there is nothing to fit."
            )
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**32:
            raise FitError(f"seed={seed!r}: give a whole number from 0 to {2**32 - 1}.")

    def _resolve(self, method: str, structure: Structure, *, grow: bool) -> tuple[Method, str]:
        reason, chain = "", _chain(structure)
        if method != "auto":
            parsed = parse_method(method)
            if parsed.amortized and structure.verdict is not Verdict.CLOSABLE:
                reason = f"The gap to F-VI can't close here ({structure.verdict}): {structure.reason}"
            elif grow:
                parsed, reason = _with_second(parsed, structure)
        elif structure.verdict is Verdict.CLOSABLE:
            parsed, reason = _with_second(parse_method("avi"), structure)
        else:
            name, why = "fvi", "F-VI"
            if grow and chain is not None:
                name, why = _structured(chain, self.bound.dim), "F-VI with a band of dependence between units"
            parsed = parse_method(name)
            reason = f"{why}, because amortization is {structure.verdict}: {structure.reason}"
        if (
            grow
            and chain is not None
            and parsed.function == "table"
            and structure.level in (None, chain.level)
        ):
            parsed = replace(parsed, coupling=_reach(chain))
        return parsed, reason

    def _level_for(self, method: Method, structure: Structure) -> Level | None:
        """The chosen level; for a method that insists on one where none is closable, the largest coupled one; for a
        banded factor, the largest one that is coupled along its axis, if none was named.

        Raises:
            MethodError: no units are coupled as a banded factor needs it.
        """
        if method.reach or method.coupling:
            chain = _chain(structure)
            if chain is not None:
                return chain.level
            raise MethodError(
                f"{method.name}: a banded factor serves units that hang on their neighbours, as in a random walk, and "
                f"none do here ({structure.verdict}). {structure.reason} Use :full-rank and :conditional for what "
                "units share through the globals, or name a coupled level with level=."
            )
        if structure.level is not None:
            return structure.level
        if method.function == "table":
            return None
        coupled = [c.level for c in structure.candidates if c.has_rows] or [
            c.level for c in structure.candidates
        ]
        return coupled[0] if coupled else None

    @one_blas_thread
    def _prepare(
        self,
        level: Level | None,
        structure: Structure,
        seed: int,
        options: FitOptions,
        *,
        whole: bool,
        settled: bool,
    ) -> tuple[Preparation, float]:
        """The shared start and the seconds it took; `whole` rules out minibatches, and a `settled` fit belongs to the
        start too.
        """
        others = _others(structure, level)
        key = (
            None if level is None else (level.name, level.latents),
            tuple(other.latents for other in others),
            whole,
            seed,
            options.num_references,
            options.max_rank,
        )
        if key not in self._preparations:
            started = time.perf_counter()
            given: dict[str, Any] = {
                "seed": seed,
                "num_references": options.num_references,
                "max_rank": options.max_rank,
            }
            slicing = None if whole else self._slicing_of(level)
            made: Preparation
            if level is not None and slicing is not None and minibatches_pay(slicing, self.data):
                made = prepare_large(self.bound, level, slicing, others=others, **given)
            else:
                made = prepare(self.bound, level, others=others, **given)
                _ = made.quick  # what it takes belongs to the preparation
            self._preparations[key] = (made, time.perf_counter() - started)
        found, seconds = self._preparations[key]
        if settled and found.others and not found._settled:
            started = time.perf_counter()
            with contextlib.suppress(StructureError):  # what has no signatures says so when it reads them
                _ = found.settled
            self._preparations[key] = (found, seconds + time.perf_counter() - started)
        return self._preparations[key]

    def _slicing_of(self, level: Level | None) -> Slicing | None:
        """How the data of some units are written, where there are so many that it may pay, and they are separable."""
        if level is None or level.num_units < FEWEST_UNITS:
            return None
        structure = self.inspect()
        if structure.level is None or structure.level.latents != level.latents:
            structure = self.inspect(level=level.latents[0])
        same = structure.level is not None and structure.level.latents == level.latents
        return structure.slicing if same and isinstance(structure.slicing, Slicing) else None


def _needs_whole(methods: Sequence[Method], options: FitOptions) -> bool:
    """Whether steps must see all units: minibatches serve what `path_gradient` covers."""
    return options.estimator != "path" or any(
        method.globals == "low-rank" or method.reach > 0 for method in methods
    )


def _others(structure: Structure, level: Level | None) -> tuple[Level, ...]:
    """The levels that can be amortized beside one, those with most latents first: their units are independent given
    everything else, that level's latents included.
    """
    if level is None:
        return ()
    found = [c.level for c in structure.candidates if c.separable and c.has_rows]
    beside = [other for other in found if other.block and not set(other.latents) & set(level.latents)]
    return tuple(sorted(beside, key=lambda other: (-other.index.size, -other.num_units)))


def _with_second(method: Method, structure: Structure) -> tuple[Method, str]:
    """The method with a second level amortized too, and why, where that has very many units and nothing that the
    method's name says of the globals, and of units that follow them, would be lost.
    """
    others = _others(structure, structure.level)
    related = (method.globals, method.conditional, method.reach, method.flow) != (
        "mean-field",
        "none",
        0,
        False,
    )
    if not method.amortized or method.second is not None or related:
        return method, ""
    if not others or others[0].num_units <= MOST_FREE_UNITS:
        return method, ""
    return parse_method(f"{method.name}:levels"), (
        f"A second level is amortized too, because {others[0].name} has more than {MOST_FREE_UNITS} units: "
        f"{others[0].num_units}, each with latents of {listed(others[0].latents)}. In q the levels are independent of "
        "each other."
    )


def _readable(preparation: Preparation, method: Method, reason: str, *, asked: str) -> tuple[Method, str]:
    """The method, or a simpler one where what was not `asked` for by name needs signatures that units don't have."""
    alone = parse_method("avi" if asked == "auto" else asked)
    if method.second is not None and alone.second is None:
        try:
            preparation.second_input(preparation.second_level(method))
        except StructureError as error:
            why = f"One level is amortized, because the units of the other have no signatures: {error}"
            method, reason = alone, why
    if method.amortized and asked == "auto":
        try:
            preparation.unit_input(method)
        except StructureError as error:
            method, reason = parse_method("fvi"), f"F-VI, because the units have no signatures: {error}"
    return method, reason


def _chain(structure: Structure) -> Candidate | None:
    """The candidate whose units a banded factor serves: the coupled one that the user named, or else the one with most
    latents whose coupling is a band.
    """
    if structure.chosen is not None and not structure.chosen.separable and structure.chosen.level.block:
        return structure.chosen
    bands = [c for c in structure.candidates if c.shape == "band" and c.has_rows]
    return max(bands, key=lambda c: (c.level.index.size, c.level.num_units), default=None)


def _structured(chain: Candidate, dim: int) -> str:
    """The method that `auto` takes for units that hang on their neighbours: it starts at Laplace's approximation, which
    knows how the chain follows the globals while these are few. Growing there from F-VI ends lower: F-VI's globals
    are far away, and globals and units only move together.
    """
    reach, num_globals = _reach(chain), dim - chain.level.index.size
    banded = "fvi:banded" if reach == 1 else f"fvi:banded({reach})"
    if not 0 < num_globals <= MAX_GLOBALS:
        return banded
    return f"{banded}{':full-rank' if num_globals > 1 else ''}:conditional(mean+scale)"


def _reach(chain: Candidate) -> int:
    """On how many units before it a unit of a banded factor hangs."""
    return min(chain.coupling.reach, MAX_REACH) if chain.coupling is not None and chain.shape == "band" else 1


def _check_reference(name: str) -> None:
    """That a text names a reference or a file.

    Raises:
        MethodError: it does neither.
    """
    from .competitors import REFERENCES

    if name in REFERENCES or os.path.exists(name):
        return
    near = difflib.get_close_matches(name, REFERENCES, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise MethodError(
        f"unknown reference {name!r}.{hint} References: {', '.join(REFERENCES)}, or the path of a netCDF file."
    )
