"""Which weighted draws are enough, and which are sure to reach all tails."""

import numpy as np
import pytest

from avistan.correction.weighing import Weighed


def weighed(count, share, **more):
    """Draws of which a share counts, alike."""
    kept = int(share * count)
    log_weights = np.where(np.arange(count) < kept, -np.log(kept), -np.inf)
    return Weighed(np.zeros((count, 2)), log_weights, 0.1, **more)


@pytest.mark.parametrize(
    ("count", "share", "reliable", "sure"),
    [
        (600, 0.9, True, True),
        (600, 0.75, True, False),
        (3000, 0.75, True, True),
        (3000, 0.15, False, False),
        (400, 0.9, False, False),
    ],
)
def test_weights_are_sure_where_they_are_even_or_many(count, share, reliable, sure):
    found = weighed(count, share)
    assert found.effective == pytest.approx(int(share * count))
    assert (found.reliable, found.is_sure) == (reliable, sure)


def test_a_surface_is_sure():
    assert weighed(8000, 0.5, surface_error=0.1).is_sure
