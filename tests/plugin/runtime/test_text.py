"""Numbers as plain text."""

import numpy as np
import pytest

from avistan.runtime.text import percent, with_error


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "0 %"),
        (0.0004, "0.04 %"),
        (0.0187, "1.9 %"),
        (0.997, "99.7 %"),
        (0.99996, "99.9 %"),
        (1.0, "100 %"),
    ],
)
def test_a_share_is_a_plain_number_and_all_only_where_it_is_all(share, text):
    assert percent(share) == text


def test_an_error_that_is_unknown_is_said_to_be():
    assert with_error(1.2, 0.314) == "1.20 +- 0.31 nats"
    assert with_error(1.2, 0.314, sign=True) == "+1.20 +- 0.31 nats"
    assert with_error(-0.71, np.nan, sign=True) == "-0.71 nats (standard error unknown)"
