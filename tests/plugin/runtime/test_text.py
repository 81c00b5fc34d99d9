"""Numbers as plain text."""

import json

import numpy as np
import pytest

from avistan.runtime.text import fixed, percent, plain, shortened, to_json, with_error


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


@pytest.mark.parametrize(
    ("value", "terminal", "page"),
    [(-12345.678, "-12345.68", "\u221212\u202f345.68"), (-0.001, "0.00", "0.00"), (None, "-", "\u2013")],
)
def test_numbers_are_ascii_in_a_terminal_and_typeset_on_a_page(value, terminal, page):
    assert fixed(value, 2) == page
    assert plain(page) == terminal


@pytest.mark.parametrize("value", [None, np.nan, np.inf])
def test_a_number_that_is_none_is_a_dash(value):
    assert fixed(value, 2) == "\u2013"


def test_long_text_is_cut_with_a_sign_of_it():
    assert shortened("tau", 60) == "tau"
    assert shortened("x" * 100, 60) == "x" * 56 + " ..."


def test_json_has_null_where_numbers_are_not_finite():
    text = to_json({"a": float("nan"), "b": [np.float64("inf"), np.int64(2)], "c": (True, None, "x")})
    assert json.loads(text) == {"a": None, "b": [None, 2], "c": [True, None, "x"]}
