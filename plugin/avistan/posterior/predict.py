"""Posteriors of units never seen: a trained inference function reads their own data; nothing is trained."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import equinox as eqx
import numpy as np
import xarray as xr

from avistan.correction.approximation import approximation
from avistan.correction.marginal import marginal_density
from avistan.correction.separable import has_separable_units
from avistan.family.family import Family
from avistan.family.placement import make_placement
from avistan.fitting.fitted import Fitted
from avistan.posterior.budget import check_draws
from avistan.posterior.corrected import Corrected, corrected, num_chains
from avistan.posterior.datatree import to_datatree, unit_diagnostics
from avistan.posterior.draws import Batch, completed, draw_batches, joined, warn_of_rejected
from avistan.posterior.fit_datatree import attributes
from avistan.posterior.refine_locals import unrefined
from avistan.posterior.unit_distance import FAR, FittedUnits, fitted_units, unit_features
from avistan.runtime.errors import FitError
from avistan.runtime.limits import check_seed, whole_number
from avistan.runtime.precision import in_float64
from avistan.runtime.progress import begin_stage
from avistan.runtime.streams import Stream, generator
from avistan.runtime.types import FloatArray
from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.stan_data import StanData
from stan_adapters.levels.levels import Level, make_level
from stan_adapters.new_units import entries_of_all_units, quantities_of_all_units, with_constants
from stan_adapters.sources import DataSource, read
from stan_adapters.structure.reasons import listed


class NewUnitsWarning(UserWarning):
    """New units are unlike those that were fitted, or what is said of them depends on which units they are."""


@in_float64
def predict(
    fit: Fitted,
    data: DataSource,
    draws: int,
    seed: int | None,
    *,
    fitted: Callable[[], FittedUnits],
    **datatree: Any,
) -> xr.DataTree:
    """Posterior of new units from their own data and the fitted globals.

    Args:
        fitted: gives what `read_fitted_units` makes of the fit, which is worth keeping for the next prediction.
        draws: of all chains together; of q's own draws of each.
        seed: of the draws; None takes the fit's.
        datatree: as of `to_datatree`.

    Returns: a DataTree as of `Fit.posterior`, for the new data: the group predictions has what belongs to the new units
        (latents, transformed parameters, generated quantities), the group unit_diagnostics how far each unit lies from
        the fitted ones (`distance`; 1 is typical of fitted units, see `unit_distance`).

    Raises:
        FitError: the method has free factors of the fitted units, or the new data change the globals.

    Warns:
        NewUnitsWarning: units lie far from the fitted ones, with how many, which is worst and how far; or
            quantities are left out of the predictions because they depend on which units are there.
    """
    begin_stage("binding the new units", next="draws of the posterior")
    if fit.level is None:
        raise FitError(
            f"{fit.model.program.name} has no level of units in this fit: all its parameters are globals, whose "
            "posterior new data would change. There are no new units to predict: fit the new data, or read the "
            "program's own predictions in fit.posterior()."
        )
    if fit.method.function == "table" and fit.method.reach:
        raise FitError(
            f"{fit.method.name} has a free factor for each fitted unit, which depends on its neighbours: new units "
            "change the posterior of the fitted ones. Fit the longer series, from the data of both."
        )
    if fit.method.function == "table":
        raise FitError(
            f"{fit.method.name} has a free factor for each fitted unit and none for new ones: fit with method='avi'."
        )
    whole_number("draws", draws)
    program = fit.model.program
    given = check_seed(fit.seed if seed is None else seed)
    new = read(program, data, level=fit.level.name)
    with (
        _meaning_the_same(fit, new) as (fitted_model, meant),
        BoundModel(meant.program, meant, engine=fit.model.engine_choice) as model,
    ):
        check_draws(model, draws, chains=len(fit.chains))
        level = level_in(fit, model)
        globals_index = level.globals_index(model.dim)
        placement = make_placement(globals_index, level.index)
        inputs, distance = _read_units(fit, model, level, fitted)
        chains = [
            (eqx.tree_at(lambda family: family.placement, unrefined(chain.family), placement), inputs)
            for chain in fit.chains
        ]
        # Beside a second level the globals hold units of their own, which q draws together with the new ones.
        made = None if fit.second is not None else corrected(fit, given)
        drawn = joined(list(_batches(fit, model, made, chains, draws, given)))
        shared = _warn_of_shared_quantities(fit, fitted_model, meant)
        groups = {}
        if distance is not None:
            groups["unit_diagnostics"] = unit_diagnostics(level.name, {"distance": distance})
            _warn_of_far(distance, level.name)
        warn_of_rejected(drawn.num_rejected, len(drawn.theta), program.name, stacklevel=4)
        tree = to_datatree(
            program,
            new,
            drawn.values,
            sample_stats=drawn.sample_stats,
            num_chains=num_chains(fit, made),
            unit_size=level.name,
            groups=groups,
            attrs=attributes(fit, draws, seed, made),
            **datatree,
        )
    left_out = {declaration.name for declaration in program.parameters} - set(level.latents)
    left_out |= shared
    parts = [
        tree[group].to_dataset() for group in ("posterior", "posterior_predictive") if group in tree.children
    ]
    kept = [part.drop_vars(left_out, errors="ignore") for part in parts]
    tree["predictions"] = xr.DataTree(xr.merge(kept))
    return tree


def _batches(
    fit: Fitted,
    model: BoundModel,
    made: Corrected | None,
    chains: Sequence[tuple[Family, FloatArray]],
    draws: int,
    seed: int,
) -> Iterator[Batch]:
    """Draws of new units: of their conditional densities given corrected globals, else of q.

    Args:
        chains: families of the restarts for the new units, with their inputs.
    """
    if made is None or made.is_q:
        yield from draw_batches(model, chains, draws, seed=seed, purpose=Stream.NEW_UNITS)
        return
    found, rng = made.correction, generator(seed, Stream.NEW_UNITS)
    rows = found.rows(draws, rng)
    if found.whole:
        rows = rows[:, :, np.asarray(fit.family.placement.global_index)]
    best = max(range(len(fit.chains)), key=lambda number: fit.chains[number].evaluation.elbo)
    q = approximation(*chains[best])
    placement = q.family.placement
    at_globals, at_units = np.asarray(placement.global_index), np.asarray(placement.local_index)
    points = np.empty((*rows.shape[:2], model.dim))
    points[:, :, at_globals] = rows
    flat = rows.reshape(-1, rows.shape[2])
    z = q.draw_units(rng, flat)[0]
    if has_separable_units(fit):
        with marginal_density(model, q) as density:
            if density.calibrate(flat):
                own = np.swapaxes(density.units(flat, rng), 1, 2)
                z = np.where(np.isfinite(own).all(axis=(1, 2), keepdims=True), own, z)
    points.reshape(-1, model.dim)[:, at_units] = z
    parts = ((chain, 0, of_chain, None) for chain, of_chain in enumerate(points))
    yield from completed(model, parts, flat.shape[0], rows.shape[1], seed)


@contextmanager
def _meaning_the_same(fit: Fitted, new: StanData) -> Iterator[tuple[BoundModel, StanData]]:
    """The program that means the same for units by themselves as for the fitted ones, bound to these, and the new data.

    It is the fit's, or, where that computes something from the data of all units, such as means by which predictors are
    centred, the same with the values that the fitted units gave it.

    Raises:
        FitError: other units would give values of all units another value all the same.
    """
    assert fit.level is not None
    entries = entries_of_all_units(fit.model, fit.level, new, generator(fit.seed, Stream.CHECKED_ENTRIES))
    if not entries:
        yield fit.model, new
        return
    found = with_constants(fit.model, fit.level, generator(fit.seed, Stream.CHECKED_ENTRIES))
    if found is not None:
        derivation, model = found
        with model:
            meant = derivation.data(new)
            rng = generator(fit.seed, Stream.CHECKED_ENTRIES)
            entries = entries_of_all_units(model, fit.level, meant, rng)
            if not entries:
                yield model, meant
                return
    raise _another_program(fit, entries)


def _another_program(fit: Fitted, entries: Sequence[str]) -> FitError:
    assert fit.level is not None
    program = fit.model.program
    computed = [d.name for d in program.transformed_data if not d.type.is_integer]
    where = f"transformed data ({', '.join(computed)}) or the model" if computed else "the model"
    return FitError(
        f"{program.name} can't predict new units of {fit.level.name}: {where} computes something from "
        f"{listed(entries)} of all units together, such as a mean or a difference from the first row, and the new data "
        "would put other values in its place than those that were fitted. Compute it before Stan, once, from the data "
        "that are fitted, and pass it to the program as data; "
        "or fit the new units with the old ones, as also where rows speak of a mean of all units' latents."
    )


def _warn_of_shared_quantities(fit: Fitted, fitted: BoundModel, new: StanData) -> set[str]:
    """Quantities of units that other units would change, such as a difference from the mean of all."""
    assert fit.level is not None
    names = quantities_of_all_units(fitted, fit.level, new, generator(fit.seed, Stream.CHECKED_QUANTITIES))
    if names:
        warnings.warn(
            f"{listed(names)} would be others if the fitted units of {fit.level.name} were there too: "
            f"{fit.model.program.name} computes from all units (a mean, say) what it says of one. Left out of the "
            "group predictions; the group posterior has what the program computes from the new units alone. Compute it "
            "from values that are passed as data, or from draws, afterwards.",
            NewUnitsWarning,
            stacklevel=5,
        )
    return set(names)


def _read_units(
    fit: Fitted, model: BoundModel, level: Level, fitted: Callable[[], FittedUnits]
) -> tuple[FloatArray, FloatArray | None]:
    """What the inference function reads of new units, and their distances from the fitted ones where it reads any."""
    if fit.unit_input is None:
        return np.empty((level.num_units, fit.chains[0].inputs.shape[1])), None
    inputs, features = unit_features(fit.unit_input, model, level.index, level.globals_index(model.dim))
    return inputs, fitted().distance(features)


def read_fitted_units(fit: Fitted) -> FittedUnits:
    """The fitted units, from which distances are measured.

    Raises:
        FitError: read again, they have other inputs than the inference function was trained on.
    """
    assert fit.unit_input is not None
    assert fit.level is not None
    index, globals_index = fit.level.index, fit.level.globals_index(fit.model.dim)
    inputs, features = unit_features(fit.unit_input, fit.model, index, globals_index)
    if not np.allclose(inputs, fit.chains[0].inputs, rtol=1e-6, atol=1e-6):
        raise FitError(
            "the fitted units, read again, have other inputs than the inference function was trained on: the way "
            "in which this fit reads units was changed (arrays.npz, if it was loaded). Fit and save again."
        )
    return fitted_units(features, fit.seed)


def _warn_of_far(distance: FloatArray, level: str) -> None:
    far = distance > FAR
    if far.any():
        worst = int(distance.argmax())
        warnings.warn(
            f"{far.sum()} of {far.size} new units of {level} lie far from the fitted units: unit "
            f"{worst + 1} is the worst, {distance[worst]:.3g} times as far from its nearest fitted unit as those are "
            "from each other. Their posteriors are extrapolated: fit again with such units among the data, and see "
            "`distance` in the group unit_diagnostics.",
            NewUnitsWarning,
            stacklevel=5,
        )


def level_in(fit: Fitted, model: BoundModel) -> Level:
    """The fitted level in data of other units.

    Raises:
        FitError: a global parameter or a unit's block has another size than in the fit.
    """
    assert fit.level is not None
    local = set(fit.level.latents)
    for fitted, new in zip(fit.model.layout.containers, model.layout.containers, strict=True):
        if fitted.name not in local and fitted.size != new.size:
            raise FitError(
                f"{fitted.name} is a global of the fit with {fitted.size} unconstrained entries; the new data "
                f"give it {new.size}. New units need data that leave the globals as they were."
            )
    level = make_level(model.layout, fit.level.name, fit.level.members)
    if level.block != fit.level.block:
        raise FitError(
            f"a unit of {level.name} has {fit.level.block} latents in the fit and {level.block} in the new data."
        )
    return level
