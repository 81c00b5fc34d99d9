"""`Model`: a Stan program and its data, ready to inspect, fit and compare."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from avistan.family.method import check_choice, check_methods, parse_method
from avistan.fit import Fit
from avistan.fitting.budget import check_method, check_sampling, check_training
from avistan.fitting.fitted import Origin
from avistan.fitting.method_choice import level_for, needs_whole
from avistan.fitting.options import make_options
from avistan.fitting.shared_start import SharedStarts
from avistan.runtime.deadline import time_limit
from avistan.runtime.errors import FitError, MethodError
from avistan.runtime.limits import check_callable, check_engine, check_level, check_seed, whole_number
from avistan.runtime.progress import ProgressCallback, begin_stage, report_step, reporting
from avistan.runtime.progress_bars import bars, quiet, shown
from avistan.runtime.types import StrPath
from avistan.start.preparation import once
from avistan.training.checkpoints import check_checkpoint_place
from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.errors import AvistanError
from stan_adapters.language.program import Program
from stan_adapters.levels.levels import Level
from stan_adapters.levels.propriety import check_posterior_exists
from stan_adapters.shards.shard import FEWEST_UNITS
from stan_adapters.sources import DataSource, read
from stan_adapters.structure.structure import Structure, inspect_structure, with_unit_data
from stan_adapters.unit_data import Slicing
from stan_adapters.unit_data.parts import told_of_bindings
from stan_adapters.unit_data.rules import parse_rules

if TYPE_CHECKING:  # a fit alone does not need the competition
    from avistan.comparison.results import Comparison


class Model:
    """A Stan program and its data, unchanged.

    Args:
        stan_file: path of the program; or give its text as `stan_code`.
        data: a mapping of names to numpy, pandas, list or scalar values, or the path of a (gzipped) JSON file; or files
            that hold some of the units each, as a list or a pattern ("parts/*.json"); or tables (*.parquet, with JSON
            next to them, or *.zarr). See `stan_adapters.sources`.
        engine: "auto", "stanli", "bridgestan" or the path of a prebuilt BridgeStan library.
        include_paths: folders in which `#include` looks first.
        level: the level to amortize, by its declared size or one of its latents; None chooses. It also says whose units
            several data files hold, where that is not clear.
        slicing: rules for the data of a subset of units, by entry name, such as {"y": "row", "g": "index"}; entries
            without a rule get a proposed one. `inspect` verifies them all.

    Raises:
        ProgramError, DataError, EngineError: the program, the data or their engine, each with place and remedy.

    Example:
        >>> root = avi.models_root() / "eight_schools"
        >>> avi.Model(stan_file=root / "eight_schools.stan", data=root / "data.json")
        Model(eight_schools, 10 unconstrained parameters, engine=stanli)
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
        begin_stage("reading data", next="binding the program")
        check_level(level)
        parse_rules(self.program, slicing or {})
        self.data = read(self.program, data, level=level, rules=slicing)
        begin_stage("binding the program", next="inspection")
        self.bound = BoundModel(self.program, self.data, engine=check_engine(engine))
        self._level_name = level
        self._slicing_rules = dict(slicing or {})
        self._structures: dict[Hashable, Structure] = {}
        self._inspections: dict[Hashable, Structure] = {}
        self._starts = SharedStarts(self.bound, self._slicing_of)

    def __repr__(self) -> str:
        return f"Model({self.program.name}, {self.bound.dim} unconstrained parameters, engine={self.bound.engine})"

    def inspect(
        self,
        *,
        level: str | None = None,
        seed: int = 1,
        progress_callback: ProgressCallback | None = None,
    ) -> Structure:
        """The levels of units, the evidence for each, the verdict, and what data feed a unit. Prints as a table.

        Args:
            progress_callback: as of `fit`.

        Raises:
            StructureError: no finite density, no such level, or hand-given slicing rules that are wrong.

        Source: Margossian & Blei, UAI 2024, for what a verdict means; `docs/theory.md` for the tests.

        Example:
            >>> structure = model.inspect()
            >>> str(structure.verdict), structure.level.name, structure.level.num_units
            ('closable', 'J', 8)
        """
        check_level(level)
        key = (level or self._level_name, check_seed(seed))

        def inspected() -> Structure:
            structure = self._structure(level, seed)
            begin_stage("inspection: data of the units")
            with told_of_bindings(report_step):
                return with_unit_data(self.bound, structure, rules=self._slicing_rules, seed=seed)

        with reporting(progress_callback):
            return once(self._inspections, key, inspected)

    def _structure(self, level: str | None, seed: int = 1) -> Structure:
        """The verdict alone, which fits rest on."""
        check_level(level)
        key = (level or self._level_name, seed)
        if key not in self._structures:
            begin_stage("inspection: levels of units")
            gradients = check_posterior_exists(self.bound, seed=seed)
            found = inspect_structure(self.bound, level=key[0], seed=seed)
            self._structures[key] = replace(found, evaluations=found.evaluations + gradients)
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
        progress_callback: ProgressCallback | None = None,
        max_seconds: float | int | None = None,
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
                `method.parse_method`.
            seed: repeats the result to the byte on one machine.
            level: the level to amortize, by its declared size or one of its latents.
            family: "auto" tries families richer than the method's own (correlations within units, along the axis of
                coupled units, and of the globals; units that depend on the globals), keeps them while the ELBO pays,
                and gives a second level of more than 200 units a function of its own, unless the method names what
                this rules out or narrows (:full-rank, :low-rank, :banded, :conditional, :flow); "fixed" does not.
                Default: "auto" with the method "auto", else "fixed".
            chains: independent restarts; each becomes a chain of the posterior.
            show_progress: a progress bar on standard error; by default where that is a terminal.
            progress_callback: called with a `ProgressRecord` whenever a stage of the fit begins or gets on; what it
                raises ends the fit.
            max_seconds: that this call may take, inspection and start included. Then training ends at the end of a
                chunk of steps, with the best state so far and the outcome `out_of_time`; with a checkpoint, `resume`
                goes on from there.
            checkpoint: a folder in which long training is saved every few seconds. It is kept, and may be deleted when
                the fit is saved.
            resume: continue what `checkpoint` holds, to the same bytes as without the interruption.
            options: fields of `FitOptions`, such as steps, draws_per_step or learning_rate.

        Raises:
            MethodError: an unknown method or option.
            StartError, StructureError: nowhere to start, no such level.
            CheckpointError: the checkpoint is of another fit, damaged, in use, or there and not to be resumed.

        Source: Margossian & Blei, UAI 2024; Kucukelbir et al., "Automatic differentiation VI", JMLR 2017.

        Example:
            >>> fit = model.fit(method="avi:polynomial(1)", steps=20, seed=1)
            >>> fit.method.name, len(fit.trace.elbo), bool(np.isfinite(fit.elbo))
            ('avi:polynomial(1)', 20, True)
        """
        chosen_options = make_options(options)
        self._check_fittable(seed)
        check_callable("progress_callback", progress_callback)
        if resume and checkpoint is None:
            raise FitError("resume=True continues a checkpoint: give its folder as checkpoint=.")
        check_choice(method, family)
        check_training(self.bound, chosen_options, chains=whole_number("chains", chains))
        with time_limit(max_seconds), reporting(progress_callback):
            structure = self._structure(
                level
            )  # what can't be fitted says so before its checkpoint is looked at
            if checkpoint is not None:
                check_checkpoint_place(checkpoint, resume=resume)
            return Fit.of(
                self._starts.fit(
                    method,
                    structure,
                    seed,
                    chosen_options,
                    family=family,
                    chains=chains,
                    checkpoint=checkpoint,
                    resume=resume,
                    show_progress=show_progress,
                )
            )

    def origin(
        self,
        *,
        method: str = "auto",
        seed: int = 1,
        level: str | None = None,
        family: str | None = None,
        **options: Any,
    ) -> Origin:
        """What `fit` trains from, arguments as there; a fit that was loaded can go on from it. Nothing is trained.

        Example:
            >>> model.origin(method="avi:polynomial(1)").method.name
            'avi:polynomial(1)'
        """
        return self._starts.origin(method, self._structure(level), seed, make_options(options), family=family)

    def compare(
        self,
        methods: Sequence[str] = ("auto", "avi", "fvi", "constant"),
        *,
        reference: Any = None,
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
            methods: names as in `fit`, and "cmdstan-advi", "cmdstan-pathfinder", "pathfinder". The row "auto" is the
                fit that `fit` gives: the ELBO is its q's, errors against a reference are those of its posterior.
            reference: "nuts" (stanli's sampler), "cmdstan-nuts", a `Reference`, None, or draws of the same program:
                CSV files of CmdStan (a path, several, a folder or a pattern; of NUTS, ADVI, Pathfinder or Laplace), a
                fit of cmdstanpy, a DataTree, netCDF or zarr of ArviZ, draws of posteriordb (`.json.zip`).
            repeats: how many seeds, counted up from `seed`; the first gives the table, the others its spread.
            cmdstan_exe: the program compiled by CmdStan; without it a CmdStan installation compiles it when needed.
            reference_options: for NUTS: chains, warmup, draws.

        Raises:
            MethodError: a name that is no method or reference, before anything runs.
            CompetitorError: the reference's file or draws can't be used. A sampler that fails is no error: the
                comparison goes on without a reference and has the reason.

        Source: common random numbers, as in Owen, "Monte Carlo theory, methods and examples", chapter 8.

        Example:
            >>> comparison = model.compare(["avi:polynomial(1)", "fvi"], steps=20, seed=1)
            >>> [row.method for row in comparison.rows]
            ['avi:polynomial(1)', 'fvi']
        """
        from avistan.comparison.competition import meaning, run_competition
        from avistan.comparison.competitors import (
            COMPETITORS,
            External,
            check_executable,
            check_reference,
            sampler_options,
        )
        from avistan.comparison.references import Reference
        from avistan.comparison.rows import AUTO

        chosen_options = make_options(options)
        self._check_fittable(seed)
        if isinstance(methods, str) or not isinstance(methods, Sequence):
            raise MethodError(f"methods={methods!r}: give a list of names, such as ['avi', 'fvi'].")
        check_methods(methods, meaning)
        whole_number("repeats", repeats)
        chosen_reference = sampler_options(reference_options or {}, reference)
        check_executable(cmdstan_exe)
        check_reference(reference)
        check_training(self.bound, chosen_options)
        check_sampling(self.bound, **chosen_reference)
        structure = self._structure(level)
        parsed = [parse_method(name) for name in methods if name not in (AUTO, *COMPETITORS)]
        banded = next((method for method in parsed if method.reach), parse_method("avi"))
        target = level_for(banded, structure)
        for each in parsed:
            with contextlib.suppress(MethodError):  # its row says why it can't serve
                check_method(self.bound, target, each, chosen_options)
        long_fit = any(method.second is not None for method in parsed)
        needs = {"whole": needs_whole(parsed, chosen_options), "long_fit": long_fit}

        def auto(seed: int) -> Fit:
            return self.fit(method=AUTO, seed=seed, level=level, show_progress=False, **options)

        with (
            External(self.bound, cmdstan_exe=cmdstan_exe) as external,
            bars() if shown(show_progress) else quiet() as progress,
        ):
            failure = ""
            if reference is not None and not isinstance(reference, Reference):
                waiting = progress(reference if isinstance(reference, str) else "reference")
                reference, failure = external.reference_or_reason(reference, seed=seed, **chosen_reference)
                if waiting is not None:
                    waiting(1, 1, float("nan"))
            return run_competition(
                [
                    self._starts.prepared(target, structure, seed + number, chosen_options, **needs)
                    for number in range(repeats)
                ],
                methods,
                chosen_options,
                structure=structure,
                external=external,
                auto=auto,
                reference=reference,
                reference_failure=failure,
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
        check_seed(seed)

    def _slicing_of(self, level: Level) -> Slicing | None:
        """How the data of some units are written, where there are so many that it may pay, and they are separable."""
        if level.num_units < FEWEST_UNITS:
            return None
        structure = self.inspect()
        if structure.level is None or structure.level.latents != level.latents:
            structure = self.inspect(level=level.latents[0])
        same = structure.level is not None and structure.level.latents == level.latents
        return structure.slicing if same and isinstance(structure.slicing, Slicing) else None
