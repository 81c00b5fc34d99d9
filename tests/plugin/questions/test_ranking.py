"""Ranks of units against counting by hand."""

import numpy as np
import pytest

from avistan.questions.ranking import rank
from avistan.runtime.errors import FitError

DRAWS = np.array([[3.0, 1.0, 2.0], [3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [5.0, 5.0, 1.0]])


def table(**asked):
    return rank(DRAWS, **({"top": 2, "largest": True, "quantiles": (0.5,)} | asked))


def test_ranks_are_those_of_each_draw():
    found = table()
    assert found.index.tolist() == [1, 2, 3]
    np.testing.assert_allclose(
        found["rank"], [(1 + 1 + 3 + 1.5) / 4, (3 + 2 + 2 + 1.5) / 4, (2 + 3 + 1 + 3) / 4]
    )
    np.testing.assert_allclose(
        found["best"], [0.5, 0, 0.25]
    )  # two that share the first rank are not the best
    np.testing.assert_allclose(found["top_2"], [0.75, 0.75, 0.5])
    np.testing.assert_allclose(found["rank_q50"], [1.25, 2, 2.5])


def test_the_smallest_may_come_first():
    found = table(largest=False)
    assert found.index.tolist() == [3, 2, 1]
    np.testing.assert_allclose(found.loc[1, "rank"], (3 + 3 + 1 + 2.5) / 4)


def test_probabilities_add_up():
    found = rank(np.random.default_rng(1).normal(size=(200, 50)), top=None, largest=True, quantiles=())
    assert found["best"].sum() == pytest.approx(1)
    assert found["top_5"].sum() == pytest.approx(5)
    assert found["rank"].mean() == pytest.approx(25.5)


@pytest.mark.parametrize("top", [0, 4, 1.5, "two", True])
def test_a_top_that_is_none_is_said(top):
    with pytest.raises(FitError, match="whole number from 1 to 3"):
        table(top=top)
