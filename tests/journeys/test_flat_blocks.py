"""Units that hold several entries of one flat vector, from the fit to new units."""

import numpy as np
import pytest

import avistan as avi
from stan_adapters.errors import StructureError
from structure_cases import CASES


def data_of(name):
    return CASES[name].make_data(np.random.default_rng(3))


@pytest.fixture(scope="module", params=["flat_columns", pytest.param("flat_blocks", marks=pytest.mark.slow)])
def fitted(request):
    """Case, model and a short fit."""
    model = avi.Model(stan_file=CASES[request.param].stan_file, data=data_of(request.param))
    return request.param, model, model.fit(method="avi:full", seed=1, steps=600)


def some_units(name, count):
    """The data of the first units, and where their entries lie in the flat vector of all units, unit by unit."""
    data = data_of(name)
    if name == "flat_blocks":
        kept = [row for row, group in enumerate(data["group"]) if group <= count]
        rows = {entry: [data[entry][row] for row in kept] for entry in ("group", "x", "y")}
        return {"N": len(kept), "J": count, **rows}, [[2 * unit, 2 * unit + 1] for unit in range(count)]
    few = data | {"K": count, "y": data["y"][:count]}
    return few, [[unit, unit + data["K"]] for unit in range(count)]


def test_the_fit_serves_units_of_two_latents(fitted):
    name, _, fit = fitted
    assert (fit.level.name, fit.level.block) == (CASES[name].level, 2)
    assert (
        fit.posterior(20, resample="none")["posterior"][CASES[name].latents[0]].shape[-1]
        == fit.level.index.size
    )


def test_a_saved_fit_has_the_same_units(fitted, tmp_path):
    _, _, fit = fitted
    fit.save(tmp_path / "fit")
    again = avi.load(tmp_path / "fit")
    np.testing.assert_array_equal(again.level.index, fit.level.index)
    one, other = (f.posterior(20, seed=2, resample="none")["posterior"] for f in (fit, again))
    for variable in one.data_vars:
        np.testing.assert_allclose(one[variable], other[variable])


def test_new_units_have_their_latents_where_the_program_reads_them(fitted):
    name, _, fit = fitted
    latent = CASES[name].latents[0]
    data, places = some_units(name, 5)
    draws = fit.posterior(400, seed=2, resample="none")["posterior"][latent].to_numpy()[0]
    new = fit.predict(data, 400, seed=2)["predictions"][latent].to_numpy()[0]
    here = [[2 * unit, 2 * unit + 1] if name == "flat_blocks" else [unit, unit + 5] for unit in range(5)]
    means, sds = draws.mean(axis=0)[places], draws.std(axis=0)[places]
    error = (new.mean(axis=0)[here] - means) / sds
    assert np.abs(error).max() < 5 * np.sqrt(2 / 400)


def test_units_at_places_without_a_pattern_are_fitted_and_not_predicted(tmp_path):
    model = avi.Model(stan_file=CASES["dyads"].stan_file, data=data_of("dyads"))
    fit = model.fit(method="avi:full", seed=1, steps=200)
    fit.save(tmp_path / "fit")
    np.testing.assert_array_equal(avi.load(tmp_path / "fit").level.index, fit.level.index)
    with pytest.raises(StructureError, match="which entries of dr belong to one unit"):
        fit.predict(data_of("dyads"))
