"""Local refinement without amortization: the gain in closed form, who moves and who does not."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import avistan as avi
import avistan.objective.elbo
from avistan.correction.approximation import approximation
from avistan.correction.separable import unit_density
from avistan.family.functions import LocalNu, Refined, Table
from avistan.family.locals import LocalGaussian
from avistan.objective.elbo import tabulated
from avistan.posterior.refine_locals import Move, num_refined, refine_locals, unrefined, with_rows
from avistan.runtime.errors import FitError
from programs import bundled, simulator


@pytest.fixture(scope="module")
def data():
    return simulator("linear")(300)


@pytest.fixture(scope="module")
def constant(data):
    return bundled("linear", data).fit(method="constant", seed=1, steps=2000)


def local_parameters(fit):
    with jax.enable_x64(True):
        return fit.family.local_parameters(jnp.asarray(fit.inputs, dtype=jnp.float32))


def test_refined_units_gain_what_the_closed_form_says(constant, data, linear_answers):
    best = linear_answers["mean_field_optimum"](data)
    short = best.elbo - linear_answers["constant_factor_optimum"](data).elbo
    refined = constant.refine()
    assert short > 20
    assert abs(refined.elbo - constant.elbo - short) < 0.5
    assert refined.elbo < best.elbo + 5 * refined.elbo_se
    nu = local_parameters(refined)
    np.testing.assert_allclose(np.asarray(nu.loc)[0], best.mean[1:], atol=0.1 * best.sd[1])
    np.testing.assert_allclose(np.exp(np.asarray(nu.log_sd)[0]), best.sd[1:], rtol=0.05)


def test_the_gain_is_measured_on_its_own_draws(constant):
    density, q = unit_density(constant), approximation(constant.family, constant.inputs)
    refined = refine_locals(constant.model, density, q, 1)
    gained = constant.refine().elbo - constant.elbo
    assert abs(refined.total - gained) < 5 * np.hypot(refined.total_se, constant.elbo_se)
    assert refined.gain.sum() == pytest.approx(refined.total)


def test_correlated_units_gain_from_whole_factors():
    fit = bundled("random_slopes").fit(method="constant:full", seed=1, steps=1500)
    other = fit.refine()
    density, q = unit_density(fit), approximation(fit.family, fit.inputs)
    refined = refine_locals(fit.model, density, q, 1)
    assert refined.total > 500
    assert (
        abs(other.elbo - fit.elbo - refined.total)
        < 5 * np.hypot(refined.total_se, fit.elbo_se) + 0.002 * refined.total
    )
    below = np.asarray(local_parameters(other).below)
    assert below.std() > 0


def test_moves_are_in_coordinates_in_which_factors_begin_as_standard_normals():
    rng, d, units = np.random.default_rng(4), 3, 4
    nu = LocalGaussian("full", d).start(jnp.zeros((d, units)))
    nu = nu._replace(
        loc=rng.normal(size=(d, units)), log_sd=rng.normal(size=(d, units)), below=rng.normal(size=(3, units))
    )
    move = Move(*(jnp.asarray(rng.normal(size=part.shape)) for part in nu[:3]))
    moved = move.of(LocalNu(*map(jnp.asarray, nu)))

    def factor(log_sd, below, unit):
        made = np.diag(np.exp(np.asarray(log_sd)[:, unit]))
        made[np.tril_indices(d, -1)] = np.asarray(below)[:, unit]
        return made

    for unit in range(units):
        start = factor(nu.log_sd, nu.below, unit)
        expected = start @ factor(move.log_sd, move.below, unit)
        np.testing.assert_allclose(factor(moved.log_sd, moved.below, unit), expected, rtol=1e-5)
        np.testing.assert_allclose(
            moved.loc[:, unit], nu.loc[:, unit] + start @ move.shift[:, unit], rtol=1e-5
        )


def test_only_chosen_units_move_and_new_units_are_served_as_before(constant):
    refined = constant.refine([3, 17])
    before, after = local_parameters(constant), local_parameters(refined)
    moved = np.flatnonzero((np.asarray(before.loc) != np.asarray(after.loc))[0])
    assert moved.tolist() == [3, 17]
    assert refined.elbo > constant.elbo
    assert refined.family.globals is constant.family.globals
    assert unrefined(refined.family).inference is constant.family.inference
    again = refined.refine([5])
    assert np.asarray(again.family.inference.units).tolist() == [3, 5, 17]
    assert not isinstance(again.family.inference.base, Refined)
    kept = np.asarray(local_parameters(again).loc)[0, [3, 17]]
    np.testing.assert_allclose(kept, np.asarray(after.loc)[0, [3, 17]], rtol=1e-12)


@pytest.mark.parametrize("base", ["constant", "table"])
def test_refined_units_keep_their_rows_where_units_are_tabulated_in_parts(constant, base, monkeypatch):
    family = constant.refine([3, 17, 250]).family
    inputs = jnp.asarray(constant.inputs, dtype=jnp.float32)
    with jax.enable_x64(True):
        if base == "table":
            of_all = Table(family.inference.base(inputs))
            family = eqx.tree_at(lambda f: f.inference.base, family, of_all)
        expected = family.local_parameters(inputs)
        monkeypatch.setattr(avistan.objective.elbo, "_UNITS_AT_ONCE", 16)
        found = tabulated(family, inputs)
        assert type(found.inference) is Table
        for one, other in zip(found.local_parameters(inputs), expected, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_refined_family_is_read_back(constant, tmp_path):
    refined = constant.refine([3, 17])
    eqx.tree_serialise_leaves(tmp_path / "leaves", refined.family.inference)
    with jax.enable_x64(True):
        empty = with_rows(constant.family, num_refined(refined.family))
        read = eqx.tree_deserialise_leaves(tmp_path / "leaves", empty.inference)
    for one, two in zip(jax.tree.leaves(read), jax.tree.leaves(refined.family.inference), strict=True):
        assert np.asarray(one).tobytes() == np.asarray(two).tobytes()
    assert num_refined(constant.family) == 0
    assert with_rows(constant.family, 0) is constant.family


@pytest.mark.parametrize(
    ("units", "words"),
    [([300], "no unit 300"), ([-1], "no unit -1"), ([], "unit numbers"), (np.array([[1]]), "unit numbers")],
)
def test_units_that_do_not_exist_are_one_clear_error(constant, units, words):
    with pytest.raises(FitError, match=words):
        constant.refine(units)


def test_a_fit_without_separable_units_has_none_to_refine():
    fit = avi.Model(stan_code="parameters { real x; } model { x ~ std_normal(); }", data={}).fit(
        steps=20, elbo_draws=100
    )
    with pytest.raises(FitError, match="separable level"):
        fit.refine()
