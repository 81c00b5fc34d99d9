"""Contrasts of units against their draws."""

import numpy as np
import pytest

from avistan.questions.contrasts import contrast
from avistan.runtime.errors import FitError

DRAWS = np.random.default_rng(1).normal(size=(500, 4)) + np.arange(4.0)


def test_a_difference_of_two_units():
    found = contrast("z", DRAWS, (4, 1))
    np.testing.assert_allclose(found.draws, DRAWS[:, 3] - DRAWS[:, 0])
    assert found.mean == pytest.approx(found.draws.mean())
    assert found.positive == (found.draws > 0).mean()
    assert found.interval == pytest.approx(tuple(np.quantile(found.draws, [0.05, 0.95])))
    assert str(found).startswith("z[4] - z[1]: ")


def test_a_weighted_sum():
    found = contrast("z", DRAWS, {1: -0.5, 2: -0.5, 3: 1})
    np.testing.assert_allclose(found.draws, DRAWS[:, 2] - DRAWS[:, :2].mean(axis=1))
    assert found.name == "-0.5 z[1] - 0.5 z[2] + z[3]"


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ((1, 1), "two different units"),
        ((1, 2, 3), "two different units"),
        ("12", "two different units"),
        (3, "two different units"),
        ({0: 1.0}, "unit 0 of a contrast: units are numbered from 1 to 4"),
        ({5: 1.0}, "numbered from 1 to 4"),
        ({"a": 1.0}, "unit 'a' of a contrast"),
        ({1: "a"}, "weight of unit 1 is 'a'"),
        ({1: float("nan")}, "weight of unit 1 is nan"),
        ({}, "weights other than 0"),
        ({1: 0.0}, "weights other than 0"),
    ],
)
def test_what_is_no_contrast_is_said(weights, message):
    with pytest.raises(FitError, match=message):
        contrast("z", DRAWS, weights)
