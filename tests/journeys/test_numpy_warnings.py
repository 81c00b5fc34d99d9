"""Numbers that are far off: what they mean is said in the outcome, and numpy's own warnings reach nobody."""

import warnings

import jax.numpy as jnp
import numpy as np
import pytest

import avistan as avi
from avistan.family.distillation import distil
from avistan.family.functions import LocalNu, make_mlp
from avistan.start.quick_fit import quick_fit
from structure_cases import CASES

# Every group has a positive level: a step that makes one of them negative leads out of the support.
POSITIVE_LEVELS = """
data { int<lower=1> N; int<lower=1> J; array[N] int<lower=1, upper=J> group; vector[N] y; }
parameters { vector[J] z; real mu; real<lower=0> tau; real<lower=0> sigma; }
transformed parameters { vector<lower=0>[J] level = mu + tau * z; }
model {
  z ~ std_normal(); mu ~ normal(0, 2); tau ~ normal(0, 2); sigma ~ std_normal(); y ~ normal(level[group], sigma);
}
"""
HUGE = """
data { int N; vector[N] y; }
parameters { real m; real<lower=0> t; vector[N] z; }
model { z ~ normal(m, t); y ~ normal(z, 1); }
"""


def positive_levels():
    rng = np.random.default_rng(7)
    group = np.repeat(np.arange(1, 41), 4)
    y = np.abs(rng.normal(0, 0.4, 40))[group - 1] + rng.normal(0, 0.5, 160)
    return avi.Model(stan_code=POSITIVE_LEVELS, data={"N": 160, "J": 40, "group": group, "y": y})


def huge():
    return avi.Model(stan_code=HUGE, data={"N": 20, "y": 1e60 * np.random.default_rng(1).normal(size=20)})


def improper():
    return avi.Model(stan_code="parameters { real x; } model { target += exp(x); }")


def overflowing_scale():
    case = CASES["overflowing_scale"]
    return avi.Model(case.stan_file, data=case.make_data(np.random.default_rng(3)))


@pytest.mark.parametrize(
    ("make", "method"),
    [
        (positive_levels, "avi"),
        (positive_levels, "fvi"),
        (huge, "fvi"),
        (improper, "fvi:flow"),
        (overflowing_scale, "avi"),
    ],
)
@pytest.mark.slow
def test_fits_and_diagnoses_warn_of_nothing_that_numpy_saw(make, method):
    model = make()
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        fit = model.fit(method=method, seed=1, steps=300)
        diagnosis = fit.diagnose()
    assert not any("RuntimeWarning" in check.finding for check in diagnosis.checks)
    if make is not overflowing_scale:  # what the numbers mean is said
        assert not diagnosis.passed


def test_features_of_units_far_out_are_the_limit():
    function = make_mlp(
        np.random.default_rng(2), 1, 8, LocalNu(*(jnp.zeros((k, 1)) for k in (1, 1, 0, 0, 0, 0, 0)))
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        features = function.features(np.array([[1e4], [-1e4]]))
    assert np.isfinite(features).all()


def test_a_quick_fit_that_steps_out_of_the_support_comes_back_and_keeps_its_width():
    quick = quick_fit(positive_levels().bound, seed=1, path=False)
    assert quick.sd.min() > 1e-4
    assert np.isfinite(quick.elbo_trace).all()


def test_a_network_that_single_precision_can_not_start_near_the_units_starts_at_one_for_all():
    rng = np.random.default_rng(2)
    function = make_mlp(rng, 3, 8, LocalNu(*(jnp.zeros((k, 1)) for k in (1, 1, 0, 0, 0, 0, 0))))
    loc = jnp.asarray(1e60 * rng.normal(size=(1, 50)))
    far = LocalNu(loc, jnp.zeros((1, 50)), *(jnp.zeros((0, 50)) for _ in range(5)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = function.projected(rng.normal(size=(50, 3)), far)
    outputs = found(jnp.asarray(rng.normal(size=(5, 3))))
    assert np.isfinite(np.asarray(outputs.loc)).all()


def test_distillation_survives_weights_beyond_single_precision():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(40, 2)).astype(np.float32)
    parameters = rng.normal(size=(2, 2)).astype(np.float32), np.zeros(2, np.float32)
    targets, weights = rng.normal(size=(40, 2)), np.full((40, 2), 1e300)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        moved = distil(lambda line, x: x @ line[0] + line[1][None], parameters, x, targets, weights)
    assert all(np.isfinite(part).all() for part in moved)
