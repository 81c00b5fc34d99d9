"""Signatures: scores at reference points, and the transform that turns them into inputs."""

import tracemalloc

import numpy as np
import pytest

from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.stan_data import read_data
from stan_adapters.errors import StructureError
from stan_adapters.language.program import Program
from stan_adapters.levels import probes as certificate
from stan_adapters.levels.levels import candidate_levels
from stan_adapters.units import signature
from stan_adapters.units.signature import (
    References,
    draw_references,
    fit_signatures,
    fit_transform,
    signature_inputs,
    unit_scores,
    usable_references,
)

SLOPES = """
data { int N; int J; array[N] int<lower=1, upper=J> g; vector[N] t; vector[N] y; }
parameters { real mu; real<lower=0> tau; vector[J] a; vector[J] b; }
model { a ~ normal(mu, tau); b ~ normal(0, 1); y ~ normal(a[g] + b[g] .* t, 1); }"""


def slopes(rng: np.random.Generator, groups: int = 6) -> dict:
    g = np.concatenate([np.arange(groups), rng.integers(0, groups, 20)]) + 1
    return {"N": g.size, "J": groups, "g": g, "t": rng.normal(size=g.size), "y": rng.normal(size=g.size)}


def bind(data: dict) -> BoundModel:
    program = Program.from_code(SLOPES)
    return BoundModel(program, read_data(program, data))


def references(count: int = 5, seed: int = 0) -> References:
    rng = np.random.default_rng(seed)
    return draw_references(
        rng,
        count,
        theta_mean=np.array([0.2, -0.1]),
        theta_sd=np.full(2, 0.3),
        z_mean=np.zeros(2),
        z_sd=np.ones(2),
    )


def places(model: BoundModel):
    level = candidate_levels(model.layout)[0]
    return level.index, level.globals_index(model.dim)


# ---- references and scores


def test_references_begin_at_the_centre_and_spread_as_told():
    drawn = references(4000)
    assert drawn.count == 4000
    np.testing.assert_array_equal(drawn.theta[0], [0.2, -0.1])
    np.testing.assert_array_equal(drawn.z[0], [0, 0])
    np.testing.assert_allclose(drawn.theta.std(axis=0), 0.3, rtol=5 / np.sqrt(2 * 4000))
    np.testing.assert_allclose(drawn.z.std(axis=0), 1.0, rtol=5 / np.sqrt(2 * 4000))
    np.testing.assert_array_equal(drawn.z, references(4000).z)


def test_scores_are_the_derivatives_of_each_units_own_terms():
    data, drawn = slopes(np.random.default_rng(1)), references()
    with bind(data) as model:
        scores = unit_scores(model, *places(model), drawn)
    g, t, y = data["g"] - 1, data["t"], data["y"]
    for k in range(drawn.count):
        mu, tau = drawn.theta[k, 0], np.exp(drawn.theta[k, 1])
        a, b = drawn.z[k]
        residual = y - a - b * t
        expected_a = np.bincount(g, residual) - (a - mu) / tau**2
        expected_b = np.bincount(g, residual * t) - b
        np.testing.assert_allclose(scores[:, 2 * k], expected_a, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(scores[:, 2 * k + 1], expected_b, rtol=1e-10, atol=1e-12)


def test_a_signature_changes_with_the_units_own_rows_only():
    data = slopes(np.random.default_rng(1))
    moved = data | {"y": data["y"] + (data["g"] == 3)}
    with bind(data) as one, bind(moved) as other:
        change = unit_scores(one, *places(one), references()) != unit_scores(
            other, *places(other), references()
        )
    assert change[2].all()
    assert not np.delete(change, 2, axis=0).any()


def test_permuting_the_units_permutes_the_signatures():
    data = slopes(np.random.default_rng(1))
    order = np.random.default_rng(2).permutation(6)
    with bind(data) as one, bind(data | {"g": order[data["g"] - 1] + 1}) as other:
        plain = unit_scores(one, *places(one), references())
        permuted = unit_scores(other, *places(other), references())
    np.testing.assert_allclose(permuted[order], plain, rtol=1e-12, atol=1e-12)


class Fenced:
    """Standard normal units that reject any coordinate beyond a fence."""

    dim = 5

    def __init__(self, fence: float) -> None:
        self.fence = fence

    def log_density_gradient(self, theta):
        if np.ndim(theta) == 2:
            lp, gradient = zip(*map(self.log_density_gradient, theta), strict=True)
            return np.array(lp), np.array(gradient)
        if np.abs(theta).max() > self.fence:
            return -np.inf, np.zeros(5)
        return 0.0, -np.asarray(theta)

    def why_rejected(self, theta):
        return "beyond the fence" if np.abs(theta).max() > self.fence else ""


FENCED = (np.arange(1, 5)[:, None], np.array([0]))


def fenced_references(centre: float) -> References:
    z = np.full((4, 1), centre) + np.array([[0.0], [0.5], [3.0], [30.0]])
    return References(np.zeros((4, 1)), z)


def test_rejected_references_are_pulled_towards_the_centre():
    kept, scores = usable_references(Fenced(2.0), *FENCED, fenced_references(0.0))
    np.testing.assert_allclose(kept.z[:, 0], [0.0, 0.5, 1.5, 1.5])
    np.testing.assert_allclose(scores, -np.broadcast_to(kept.z.T, (4, 4)))
    np.testing.assert_array_equal(unit_scores(Fenced(2.0), *FENCED, kept), scores)


def test_a_reference_that_only_the_centre_could_replace_is_dropped():
    kept, scores = usable_references(Fenced(0.6), *FENCED, fenced_references(0.0))
    np.testing.assert_allclose(kept.z[:, 0], [0.0, 0.5, 0.45])  # 30 is out of reach even at a twentieth
    assert scores.shape == (4, 3)


def test_too_few_usable_references_are_an_error_with_the_reason():
    with pytest.raises(StructureError, match=r"only 0 of 4 reference points .*\(beyond the fence\)"):
        usable_references(Fenced(2.0), *FENCED, fenced_references(9.0))


def test_new_data_that_reject_a_reference_are_an_error_with_the_reason():
    with pytest.raises(StructureError, match="not finite at a reference point of the fit: beyond the fence"):
        unit_scores(Fenced(2.0), *FENCED, fenced_references(0.0))


def test_scores_taken_side_by_side_are_the_same_and_so_is_the_error(monkeypatch):
    references = fenced_references(0.0)
    alone = unit_scores(Fenced(100.0), *FENCED, references)
    monkeypatch.setattr(certificate, "_MANY_NUMBERS", 1)
    np.testing.assert_array_equal(unit_scores(Fenced(100.0), *FENCED, references), alone)
    with pytest.raises(StructureError, match="not finite at a reference point of the fit: beyond the fence"):
        unit_scores(Fenced(2.0), *FENCED, references)


# ---- the transform


def correlated(rng: np.random.Generator, units: int = 500) -> np.ndarray:
    factors = rng.normal(size=(units, 3)) * [5.0, 1.0, 0.2]
    return factors @ rng.normal(size=(3, 8)) * np.logspace(-3, 3, 8) + 7.0


def test_inputs_are_whitened_and_of_the_rank_of_the_scores():
    scores = correlated(np.random.default_rng(0))
    inputs = fit_transform(scores, max_rank=16)(scores)
    assert inputs.shape == (500, 3)
    np.testing.assert_allclose(inputs.mean(axis=0), 0, atol=1e-10)
    np.testing.assert_allclose(np.cov(inputs.T, ddof=0), np.eye(3), atol=1e-8)


def test_the_rank_is_at_most_what_was_asked_and_the_largest_components_stay():
    scores = correlated(np.random.default_rng(0))
    whole, cut = fit_transform(scores, max_rank=16), fit_transform(scores, max_rank=2)
    np.testing.assert_allclose(cut(scores), whole(scores)[:, :2])


def test_the_units_of_the_scores_do_not_matter():
    scores = correlated(np.random.default_rng(0))
    factor, shift = np.logspace(4, -4, 8), np.linspace(-3, 3, 8)
    plain, other = fit_transform(scores, max_rank=8), fit_transform(scores * factor + shift, max_rank=8)
    np.testing.assert_allclose(other(scores * factor + shift), plain(scores), atol=1e-6)


def test_a_stored_transform_gives_a_unit_the_same_inputs_in_any_company():
    scores = correlated(np.random.default_rng(0))
    transform = fit_transform(scores, max_rank=8)
    np.testing.assert_allclose(transform(scores[17:20]), transform(scores)[17:20], rtol=1e-12, atol=1e-12)


def test_heavy_tails_are_bounded_and_light_ones_left_alone():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(1000, 2))
    scores[0, 1] = 1e6
    transform = fit_transform(scores, max_rank=2)
    assert transform.heavy.tolist() == [False, True]
    assert np.abs(transform(scores)).max() < 35
    assert np.abs(transform(scores)[1:]).max() < 6


def test_columns_that_never_vary_are_dropped():
    rng = np.random.default_rng(0)
    scores = np.column_stack([rng.normal(size=50), np.full(50, 3.0), np.full(50, 1e9) + 1e-7])
    transform = fit_transform(scores, max_rank=3)
    assert (transform.scale > 0).tolist() == [True, False, False]
    assert transform(scores).shape == (50, 1)


def test_units_without_rows_do_not_make_the_scale_zero():
    rng = np.random.default_rng(0)
    scores = np.where(np.arange(100)[:, None] < 70, 0.0, rng.normal(size=(100, 2)))
    transform = fit_transform(scores, max_rank=2)
    assert (transform.scale > 0).all()
    assert np.isfinite(transform(scores)).all()


def test_units_that_are_all_alike_have_no_inputs():
    transform = fit_transform(np.full((10, 4), 2.0), max_rank=3)
    assert transform(np.full((5, 4), 2.0)).shape == (5, 0)


# ---- many units


class ManyUnits:
    """N units with two latents and two numbers of data each; d u / dz = (a - z exp(theta), b (1 - z theta))."""

    def __init__(self, units: int) -> None:
        rng = np.random.default_rng(units)
        self.a, self.b = rng.normal(size=units), np.exp(rng.normal(size=units))
        self.dim = 1 + 2 * units
        self.index = 1 + np.arange(2 * units).reshape(units, 2)

    def log_density_gradient(self, theta):
        gradient, z = np.zeros(self.dim), theta[1:].reshape(-1, 2)
        gradient[self.index[:, 0]] = self.a - z[:, 0] * np.exp(theta[0])
        gradient[self.index[:, 1]] = self.b * (1 - z[:, 1] * theta[0])
        return 0.0, gradient

    def why_rejected(self, theta):
        return ""


def many_references(count: int) -> References:
    rng = np.random.default_rng(0)
    return References(rng.normal(size=(count, 1)), rng.normal(size=(count, 2)))


def test_few_units_have_the_transform_of_all_their_scores():
    model, drawn = ManyUnits(500), many_references(6)
    usable, scores = usable_references(model, model.index, np.array([0]), drawn)
    expected = fit_transform(scores, max_rank=4)
    found, transform, inputs = fit_signatures(model, model.index, np.array([0]), drawn, max_rank=4, seed=3)
    np.testing.assert_array_equal(found.z, usable.z)
    np.testing.assert_array_equal(transform.components, expected.components)
    np.testing.assert_array_equal(inputs, expected(scores))
    np.testing.assert_array_equal(
        signature_inputs(model, model.index, np.array([0]), found, transform), inputs
    )


def test_many_units_have_the_transform_of_a_sample(monkeypatch):
    monkeypatch.setattr(signature, "MOST_FITTED", 1000)
    monkeypatch.setattr(signature, "_ROWS_AT_ONCE", 700)
    model, drawn = ManyUnits(3000), many_references(6)
    options = {"max_rank": 4, "seed": 3}
    usable, transform, inputs = fit_signatures(model, model.index, np.array([0]), drawn, **options)
    scores = unit_scores(model, model.index, np.array([0]), usable)
    np.testing.assert_allclose(inputs, transform(scores), rtol=1e-10, atol=1e-10)
    sample = np.random.default_rng(3).choice(3000, 1000, replace=False)
    np.testing.assert_array_equal(transform.center, np.median(scores[sample], axis=0))
    again = fit_signatures(model, model.index, np.array([0]), drawn, **options)
    np.testing.assert_array_equal(again[2], inputs)
    other = fit_signatures(model, model.index, np.array([0]), drawn, max_rank=4, seed=4)
    assert not np.array_equal(other[1].center, transform.center)


def test_an_outlier_outside_the_sample_is_bounded_too(monkeypatch):
    monkeypatch.setattr(signature, "MOST_FITTED", 1000)
    model, drawn = ManyUnits(3000), many_references(6)
    sample = np.random.default_rng(0).choice(3000, 1000, replace=False)
    outlier = np.setdiff1d(np.arange(3000), sample)[0]
    model.a[outlier] = 1e6
    _, transform, inputs = fit_signatures(model, model.index, np.array([0]), drawn, max_rank=4)
    assert transform.heavy.all()
    assert np.abs(inputs[outlier]).max() < 100


def test_many_units_never_hold_the_scores_of_all_references(monkeypatch):
    monkeypatch.setattr(signature, "MOST_FITTED", 1000)
    units, count = 40_000, 40
    model, drawn = ManyUnits(units), many_references(count)
    tracemalloc.start()
    fit_signatures(model, model.index, np.array([0]), drawn, max_rank=4)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * units * 2 * count
