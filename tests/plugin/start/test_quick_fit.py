"""The quick fit: near the posterior, on hard starts too, and one clear error where there is nowhere to start."""

import numpy as np
import pytest

from avistan.start.quick_fit import StartError, quick_fit
from programs import NORMALS, bind


def test_it_comes_near_an_independent_normal_of_any_scale():
    mean, sd = np.array([3.0, -40.0, 0.1]), np.array([0.05, 5.0, 1.0])
    with bind(NORMALS, {"D": 3, "mean": mean, "sd": sd}) as model:
        fit = quick_fit(model, seed=1)
    assert (np.abs(fit.mean - mean) < 0.5 * sd).all()
    assert (np.abs(np.log(fit.sd / sd)) < 0.5).all()


def test_the_same_seed_repeats():
    with bind(NORMALS, {"D": 2, "mean": [1.0, 2.0], "sd": [1.0, 0.5]}) as model:
        one, two, other = (quick_fit(model, seed=seed) for seed in (7, 7, 8))
    assert one.mean.tobytes() == two.mean.tobytes()
    assert one.elbo_trace.tobytes() == two.elbo_trace.tobytes()
    assert (
        one.elbo_trace.tobytes() != other.elbo_trace.tobytes()
    )  # the means may agree: both can be exact here
    assert one.gradient_evaluations == two.gradient_evaluations


def test_it_starts_where_zero_is_rejected():
    code = """
    parameters { real x; }
    model { if (x < 0.5) reject("x is ", x); x ~ normal(1, 0.1); }
    """
    with bind(code, {}) as model:
        fit = quick_fit(model, seed=1)
    assert abs(fit.mean[0] - 1) < 0.1
    assert 0.05 < fit.sd[0] < 0.2


def test_a_density_that_is_finite_nowhere_is_one_error_with_stans_reason():
    code = 'parameters { real x; } model { reject("never again"); }'
    with bind(code, {}) as model, pytest.raises(StartError, match="never again"):
        quick_fit(model, seed=1)
