"""Methods by name."""

import pytest

from avistan.family.method import DEFAULT_RANK, DEFAULT_WIDTH, parse_method
from avistan.runtime.errors import MethodError


@pytest.mark.parametrize(
    ("name", "function", "size", "local", "data"),
    [
        ("avi", "mlp", DEFAULT_WIDTH, "diagonal", ()),
        ("avi:mlp(16)", "mlp", 16, "diagonal", ()),
        ("avi:polynomial(2)", "polynomial", 2, "diagonal", ()),
        ("avi:polynomial(1):data(x, t):full", "polynomial", 1, "full", (("x", (0,)), ("t", (0,)))),
        ("avi:window(x, -1, 0)", "mlp", DEFAULT_WIDTH, "diagonal", (("x", (-1, 0)),)),
        (
            "avi:mlp(6):data(t):window(x, y, +1)",
            "mlp",
            6,
            "diagonal",
            (("t", (0,)), ("x", (1,)), ("y", (1,))),
        ),
        ("fvi", "table", 0, "diagonal", ()),
        ("fvi:full", "table", 0, "full", ()),
        ("constant", "constant", 0, "diagonal", ()),
    ],
)
def test_a_name_says_function_size_covariance_and_input(name, function, size, local, data):
    method = parse_method(name)
    assert (method.function, method.size, method.local, method.data) == (function, size, local, data)
    assert parse_method(method.name) == method
    assert method.amortized == name.startswith("avi")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("avy", "Did you mean 'avi'"),
        ("nuts", "Methods are avi"),
        ("avi:mpl(3)", r"[Ii]t takes mlp\(WIDTH\)"),
        ("avi:mlp(0)", "positive width"),
        ("avi:polynomial", "positive degree"),
        ("avi:polynomial(x)", "positive degree"),
        ("fvi:mlp(3)", "[Ii]t takes full"),
        ("constant:data(x)", "[Ii]t takes full"),
        ("fvi:banded(3)", r"[Ii]t takes full, banded, banded\(2\)"),
        ("fvi:neighbours(2)", "[Ii]t takes full"),
        ("avi:neighbours", "positive number"),
        ("avi:neighbours(2):data(x)", "window"),
        ("avi:window(x)", r"such as window\(x, -1, 0\)"),
        ("avi:window(-1, 0)", "needs data entries"),
        ("avi:window(x, 0, 0)", "needs data entries"),
        ("", "unknown method"),
        ("AVI", "Did you mean 'avi'"),
        ("avi:full_rank", "Did you mean 'full-rank'"),
        ("nuts", r"compare\(reference='nuts'\)"),
        ("avi:levels()", "[Ii]t takes mlp"),
        ("fvi:low-rank(0)", "positive rank"),
        ("avi:levels:low-rank(3)", "leave out :full-rank, :low-rank"),
    ],
)
def test_a_name_that_is_none_says_what_there_is(name, words):
    with pytest.raises(MethodError, match=words):
        parse_method(name)


@pytest.mark.parametrize(
    ("name", "local", "reach", "neighbours"),
    [
        ("fvi:banded", "banded", 1, 0),
        ("fvi:full:banded(2):full-rank", "banded", 2, 0),
        ("fvi:banded:full", "banded", 1, 0),
        ("avi:mlp(8):neighbours(2):banded", "banded", 1, 2),
    ],
)
def test_a_name_says_on_whom_units_hang_and_whose_signatures_they_read(name, local, reach, neighbours):
    method = parse_method(name)
    assert (method.local, method.reach, method.neighbours) == (local, reach, neighbours)
    assert parse_method(method.name) == method


def test_a_name_says_which_levels_are_amortized_and_the_rank_of_the_globals():
    assert parse_method("avi").second is None
    assert parse_method("avi:mlp(8):levels:full").second == ""
    assert parse_method("avi:levels( item )").second == "item"
    low_rank = parse_method("fvi:low-rank")
    assert (low_rank.globals, low_rank.rank) == ("low-rank", DEFAULT_RANK)
    assert parse_method("avi:low-rank(3):conditional").rank == 3
    assert parse_method("avi:low-rank(3)").family != parse_method("avi:low-rank(4)").family
