"""Shrinkage against the closed form of normal means."""

import numpy as np
import pytest

from avistan.questions.shrinkage import shrinkage
from avistan.runtime.errors import FitError


def test_normal_means_have_the_shrinkage_of_theory():
    """z ~ normal(0, 2), y ~ normal(z, 1): posterior means are spread by 2 sqrt(0.8), posterior sds sqrt(0.8)."""
    rng = np.random.default_rng(1)
    y = rng.normal(0, 2, 2000) + rng.normal(size=2000)
    draws = 0.8 * y + rng.normal(0, np.sqrt(0.8), (1000, 2000))
    found = shrinkage("z", draws)
    assert found.population_sd == pytest.approx(2, rel=0.05)  # of 2000 units: a standard error of 1.6 %
    assert found.pooling == pytest.approx(0.2, abs=0.02)
    assert found.eta_shrinkage == pytest.approx(1 - np.sqrt(0.8), abs=0.01)
    assert found.table["sd_ratio"].mean() == pytest.approx(np.sqrt(0.8) / 2, rel=0.05)
    assert "11 % less than the units themselves" in str(found) or "10 % less" in str(found)


def test_what_all_units_share_is_no_shrinkage():
    rng = np.random.default_rng(1)
    draws = rng.normal(size=(1000, 50)) + 10 * rng.normal(size=(1000, 1))
    ratio = shrinkage("z", draws).table["sd_ratio"]
    assert ratio.mean() == pytest.approx(np.sqrt(49 / 50), rel=0.01)


def test_units_that_can_not_shrink_are_said():
    with pytest.raises(FitError, match="two units"):
        shrinkage("z", np.zeros((10, 1)))
    with pytest.raises(FitError, match="nothing to shrink"):
        shrinkage("z", np.zeros((10, 3)))
