"""Data in several files, each of some units: joined they are the data of all, and what can't be joined is named."""

import gzip
import json

import numpy as np
import pytest
import zarr
from typer.testing import CliRunner

import avistan as avi
from avistan.cli.app import app
from programs import simulator
from sliced_cases import CASES, bind, inspected, values
from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.stan_data import DataWarning, read_data
from stan_adapters.errors import DataError, StructureError
from stan_adapters.language.program import Program
from stan_adapters.sources import read
from stan_adapters.unit_data.joining import join
from stan_adapters.unit_data.slicing import Slicing

NOT_SLICEABLE = {  # with its transformed data computed anew
    "dyads",
    "missing_outcomes",
    "two_groupings_in_one_vector",
    "saw",
    "neighbour_mean",
    "autoregressive_observations",
    "position_as_number",
    "response_patterns",
    "standardized_data",
    "hard_coded_size",
    "size_minus_one",
    "size_product",
    "size_from_transformed_data",
}
LINEAR = "data { int<lower=0> N; vector[N] x; real tau; } parameters { real m; vector[N] z; } model { }"


def program_of(declarations, parameters):
    return Program.from_code(f"data {{ {declarations} }} parameters {{ {parameters} }}")


def parts_of(program, *parts):
    return [read_data(program, part, source=f"{name}.json") for name, part in zip("abc", parts, strict=False)]


def joined(declarations, parameters, *parts, **options):
    return values(join(parts_of(program_of(declarations, parameters), *parts), **options))


# ---- The inverse of slicing --------------------------------------------------------------------------------


def test_the_cases_that_are_sliceable_are_known():
    found = {name: inspected(name)[2] for name in CASES}
    as_they_are = {name for name, s in found.items() if isinstance(s, Slicing) and s.derivation is None}
    assert set(CASES) - as_they_are == NOT_SLICEABLE


@pytest.mark.parametrize("name", sorted(set(CASES) - NOT_SLICEABLE - {"two_units"}))
def test_joining_the_slices_of_a_model_gives_its_data_and_density_back(name):
    model, level, slicing = inspected(name)
    units = np.split(np.arange(level.num_units), [level.num_units // 5, level.num_units // 2])
    parts = [slicing.subset(model.data, some) for some in units]
    whole = join(parts, level=level.name)
    for part, some in zip(parts, units, strict=True):
        assert values(slicing.subset(whole, some)) == values(part)
    theta = np.random.default_rng(7).normal(scale=0.3, size=(2, model.dim))
    with BoundModel(model.program, whole) as again:
        (density, gradient), expected = again.log_density_gradient(theta), model.log_density_gradient(theta)
        np.testing.assert_allclose(density, expected[0], rtol=1e-9)
        np.testing.assert_allclose(gradient, expected[1], rtol=1e-9, atol=1e-9)


# ---- Known answers -----------------------------------------------------------------------------------------

LAYOUTS = {
    "units": (
        "int N; int K; matrix[N, K] x; vector[K] w;",
        "vector[N] z;",
        {"N": 2, "K": 3, "x": [[1, 2, 3], [4, 5, 6]], "w": [7, 8, 9]},
        {"N": 1, "K": 3, "x": [[0, 0, 1]], "w": [7, 8, 9]},
        {"N": 3, "K": 3, "x": [[1, 2, 3], [4, 5, 6], [0, 0, 1]], "w": [7, 8, 9]},
    ),
    "columns": (
        "int N; int K; matrix[K, N] x;",
        "matrix[K, N] z;",
        {"N": 2, "K": 2, "x": [[1, 2], [3, 4]]},
        {"N": 1, "K": 2, "x": [[5], [6]]},
        {"N": 3, "K": 2, "x": [[1, 2, 5], [3, 4, 6]]},
    ),
    "index": (
        "int N; int J; array[N] int<lower=1, upper=J> g; vector[N] y;",
        "vector[J] a;",
        {"N": 3, "J": 3, "g": [3, 1, 3], "y": [1, 2, 3]},
        {"N": 2, "J": 1, "g": [1, 1], "y": [4, 5]},
        {"N": 5, "J": 4, "g": [3, 1, 3, 4, 4], "y": [1, 2, 3, 4, 5]},
    ),
    "index without bounds": (
        "int N; int J; array[N] int g; vector[N] y;",
        "vector[J] a;",
        {"N": 4, "J": 2, "g": [2, 1, 2, 1], "y": [1, 2, 3, 4]},
        {"N": 2, "J": 1, "g": [1, 1], "y": [4, 5]},
        {"N": 6, "J": 3, "g": [2, 1, 2, 1, 3, 3], "y": [1, 2, 3, 4, 4, 5]},
    ),
    "nested": (
        "int C; int S; array[S] int<lower=1, upper=C> c; int R; array[R] int<lower=1, upper=S> s; vector[R] y;",
        "vector[C] a;",
        {"C": 2, "S": 3, "c": [1, 2, 1], "R": 4, "s": [2, 1, 3, 1], "y": [1, 2, 3, 4]},
        {"C": 1, "S": 2, "c": [1, 1], "R": 3, "s": [2, 1, 1], "y": [5, 6, 7]},
        {
            "C": 3,
            "S": 5,
            "c": [1, 2, 1, 3, 3],
            "R": 7,
            "s": [2, 1, 3, 1, 5, 4, 4],
            "y": [1, 2, 3, 4, 5, 6, 7],
        },
    ),
    "observed units": (
        "int N; int M; array[M] int<lower=1, upper=N> ii; vector[M] y;",
        "vector[N] z;",
        {"N": 3, "M": 2, "ii": [1, 3], "y": [1, 2]},
        {"N": 2, "M": 1, "ii": [2], "y": [4]},
        {"N": 5, "M": 3, "ii": [1, 3, 5], "y": [1, 2, 4]},
    ),
    "starts and sizes": (
        "int J; int N; array[J] int start; array[J] int sizes; vector[N] y;",
        "vector[J] a;",
        {"J": 3, "N": 4, "start": [1, 3, 4], "sizes": [2, 1, 1], "y": [1, 2, 3, 4]},
        {"J": 2, "N": 3, "start": [1, 2], "sizes": [1, 2], "y": [5, 6, 7]},
        {"J": 5, "N": 7, "start": [1, 3, 4, 5, 6], "sizes": [2, 1, 1, 1, 2], "y": [1, 2, 3, 4, 5, 6, 7]},
    ),
    "starts from 0": (
        "int J; int N; array[J] int start; array[J] int sizes; vector[N] y;",
        "vector[J] a;",
        {"J": 3, "N": 4, "start": [0, 2, 3], "sizes": [2, 1, 1], "y": [1, 2, 3, 4]},
        {"J": 2, "N": 3, "start": [0, 1], "sizes": [1, 2], "y": [5, 6, 7]},
        {"J": 5, "N": 7, "start": [0, 2, 3, 4, 5], "sizes": [2, 1, 1, 1, 2], "y": [1, 2, 3, 4, 5, 6, 7]},
    ),
    "starts in another order": (
        "int J; int N; array[J] int start; array[J] int sizes; vector[N] y;",
        "vector[J] a;",
        {"J": 3, "N": 4, "start": [3, 1, 4], "sizes": [1, 2, 1], "y": [1, 2, 3, 4]},
        {"J": 2, "N": 3, "start": [1, 2], "sizes": [1, 2], "y": [5, 6, 7]},
        {"J": 5, "N": 7, "start": [3, 1, 4, 5, 6], "sizes": [1, 2, 1, 1, 2], "y": [1, 2, 3, 4, 5, 6, 7]},
    ),
    "starts and ends": (
        "int J; int N; array[J] int start; array[J] int stop; vector[N] y;",
        "vector[J] a;",
        {"J": 3, "N": 4, "start": [1, 3, 4], "stop": [2, 3, 4], "y": [1, 2, 3, 4]},
        {"J": 2, "N": 3, "start": [1, 2], "stop": [1, 3], "y": [5, 6, 7]},
        {"J": 5, "N": 7, "start": [1, 3, 4, 5, 6], "stop": [2, 3, 4, 5, 7], "y": [1, 2, 3, 4, 5, 6, 7]},
    ),
    "offsets": (
        "int J; int N; array[J + 1] int off; vector[N] y;",
        "vector[J] a;",
        {"J": 3, "N": 6, "off": [1, 3, 4, 7], "y": [1, 2, 3, 4, 5, 6]},
        {"J": 2, "N": 4, "off": [1, 2, 5], "y": [7, 8, 9, 10]},
        {"J": 5, "N": 10, "off": [1, 3, 4, 7, 8, 11], "y": list(range(1, 11))},
    ),
    "offsets beside an integer that could be starts": (
        "int J; int N; array[J] int age; array[J + 1] int off; vector[N] y;",
        "vector[J] a;",
        {"J": 3, "N": 6, "age": [1, 2, 2], "off": [1, 3, 4, 7], "y": [1, 2, 3, 4, 5, 6]},
        {"J": 2, "N": 4, "age": [1, 3], "off": [1, 2, 5], "y": [7, 8, 9, 10]},
        {"J": 5, "N": 10, "age": [1, 2, 2, 1, 3], "off": [1, 3, 4, 7, 8, 11], "y": list(range(1, 11))},
    ),
    "an integer that is the last row of each unit in one file": (
        "int J; int N; array[J] int start; array[J] int n; vector[N] y; array[J] int age;",
        "vector[J] a;",
        {"J": 2, "N": 4, "start": [1, 3], "n": [2, 2], "y": [1, 2, 3, 4], "age": [2, 4]},
        {"J": 3, "N": 6, "start": [1, 4, 6], "n": [3, 2, 1], "y": [1, 2, 3, 4, 5, 6], "age": [4, 1, 1]},
        {
            "J": 5,
            "N": 10,
            "start": [1, 3, 5, 8, 10],
            "n": [2, 2, 3, 2, 1],
            "y": [1, 2, 3, 4, 1, 2, 3, 4, 5, 6],
            "age": [2, 4, 4, 1, 1],
        },
    ),
    "starts alone": (
        "int J; int N; array[J] int<lower=1, upper=N> start; vector[N] y;",
        "vector[J] a;",
        {"J": 3, "N": 4, "start": [1, 3, 4], "y": [1, 2, 3, 4]},
        {"J": 2, "N": 5, "start": [1, 2], "y": [5, 6, 7, 8, 9]},
        {"J": 5, "N": 9, "start": [1, 3, 4, 5, 6], "y": [1, 2, 3, 4, 5, 6, 7, 8, 9]},
    ),
    "an empty file": (
        "int J; int N; array[J] int sizes; vector[N] y;",
        "vector[J] a;",
        {"J": 2, "N": 5, "sizes": [2, 3], "y": [1, 2, 3, 4, 5]},
        {"J": 0, "N": 0},
        {"J": 2, "N": 5, "sizes": [2, 3], "y": [1, 2, 3, 4, 5]},
    ),
    "an integer table that all share": (
        "int N; int M; array[M] int cat; vector[M] w; vector[N] y;",
        "vector[N] z;",
        {"N": 3, "M": 2, "cat": [1, 2], "w": [1, 2], "y": [1, 2, 3]},
        {"N": 2, "M": 2, "cat": [1, 2], "w": [1, 2], "y": [4, 5]},
        {"N": 5, "M": 2, "cat": [1, 2], "w": [1, 2], "y": [1, 2, 3, 4, 5]},
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_units_of_the_second_file_come_after_those_of_the_first(layout):
    declarations, parameters, first, second, expected = LAYOUTS[layout]
    assert joined(declarations, parameters, first, second) == expected


def test_one_part_is_itself():
    (part,) = parts_of(Program.from_code(LINEAR), {"N": 1, "x": [1], "tau": 1})
    assert join([part]) is part


def test_a_level_says_whose_units_the_files_hold_where_both_are_possible():
    declarations, parameters = "int J; int I; array[J, I] int y;", "vector[J] theta; vector[I] b;"
    parts = [{"J": 2, "I": 2, "y": [[1, 0], [1, 1]]}, {"J": 2, "I": 2, "y": [[0, 0], [1, 0]]}]
    with pytest.raises(DataError, match=r"units of J \(theta\) or of I \(b\).*level='J'"):
        joined(declarations, parameters, *parts)
    persons = {"J": 4, "I": 2, "y": [[1, 0], [1, 1], [0, 0], [1, 0]]}
    assert joined(declarations, parameters, *parts, level="J") == persons
    assert joined(declarations, parameters, *parts, level="theta") == persons
    items = {"J": 2, "I": 4, "y": [[1, 0, 0, 0], [1, 1, 1, 0]]}
    assert joined(declarations, parameters, *parts, level="b") == items
    parts[1] = {"J": 1, "I": 2, "y": [[0, 0]]}
    assert joined(declarations, parameters, *parts)["J"] == 3


def test_rows_of_the_same_units_are_refused_unless_the_level_is_named():
    declarations = "int N; int J; vector[J] u; array[N] int<lower=1, upper=J> g; vector[N] y;"
    parts = [
        {"N": 2, "J": 2, "u": [5, 6], "g": [2, 1], "y": [1, 2]},
        {"N": 3, "J": 2, "u": [5, 6], "g": [1, 2, 2], "y": [4, 5, 6]},
    ]
    with pytest.raises(DataError, match=r"same u, so these seem to be rows of the same units.*level='J'"):
        joined(declarations, "vector[J] a;", *parts)
    assert joined(declarations, "vector[J] a;", *parts, level="J")["g"] == [2, 1, 3, 4, 4]


def test_a_rule_by_hand_says_what_declarations_do_not():
    declarations = "int N; int J; array[N] int g; array[N] int v; vector[N] y;"
    parts = [
        {"N": 4, "J": 2, "g": [2, 1, 2, 1], "v": [1, 1, 2, 1], "y": [1, 2, 3, 4]},
        {"N": 2, "J": 1, "g": [1, 1], "v": [1, 1], "y": [4, 5]},
    ]
    with pytest.raises(DataError, match=r"`g` and `v` could both hold the numbers.*upper=J> g"):
        joined(declarations, "vector[J] a;", *parts)
    found = joined(declarations, "vector[J] a;", *parts, rules={"g": "index"})
    assert found["g"] == [2, 1, 2, 1, 3, 3]
    assert found["v"] == [1, 1, 2, 1, 1, 1]
    with pytest.raises(StructureError, match="'indexed', expected one of"):
        joined(declarations, "vector[J] a;", *parts, rules={"g": "indexed"})


def test_one_unit_in_each_file_does_not_tell_sizes_from_ends():
    declarations = "int J; int N; array[J] int<lower=1, upper=N> start; array[J] int n; vector[N] y;"
    parts = [
        {"J": 1, "N": 2, "start": [1], "n": [2], "y": [1, 2]},
        {"J": 1, "N": 3, "start": [1], "n": [3], "y": [3, 4, 5]},
    ]
    with pytest.raises(DataError, match="could be its 'sizes' of rows or its 'end'"):
        joined(declarations, "vector[J] a;", *parts)
    found = joined(declarations, "vector[J] a;", *parts, rules={"start": "start", "n": "end"})
    assert (found["start"], found["n"]) == ([1, 3], [2, 5])
    found = joined(declarations, "vector[J] a;", *parts, rules={"start": "start", "n": "sizes"})
    assert (found["start"], found["n"]) == ([1, 3], [2, 3])
    declarations = declarations.replace("<lower=1, upper=N>", "")
    with pytest.raises(DataError, match="`start` could be its 'start' of rows or its 'unit'"):
        joined(declarations, "vector[J] a;", *parts)


# ---- What can't be joined ----------------------------------------------------------------------------------

REFUSED = {
    "a number that differs": (
        "int N; real t; vector[N] y;",
        "vector[N] z;",
        [{"N": 2, "t": 1, "y": [1, 2]}, {"N": 1, "t": 1, "y": [3]}, {"N": 1, "t": 2.5, "y": [3]}],
        r"`t` differs between a.json \(1.0\) and c.json \(2.5\)",
    ),
    "an array that differs": (
        "int N; int K; vector[K] t; vector[N] y;",
        "vector[N] z;",
        [{"N": 2, "K": 2, "t": [1, 2], "y": [1, 2]}, {"N": 2, "K": 2, "t": [1, 3], "y": [3, 4]}],
        "`t` differs between a.json and b.json",
    ),
    "a tuple that differs": (
        "int N; tuple(int, real) t; vector[N] y;",
        "vector[N] z;",
        [{"N": 1, "t": (1, 2), "y": [1]}, {"N": 2, "t": (1, 2.5), "y": [1, 2]}],
        "`t` differs between a.json and b.json",
    ),
    "distances": (
        "int N; matrix[N, N] d;",
        "vector[N] z;",
        [{"N": 2, "d": [[0, 1], [1, 0]]}, {"N": 1, "d": [[0]]}],
        "`matrix.N, N. d` grows along two axes",
    ),
    "numbers or counts": (
        "int N; array[N] int<lower=1, upper=N> parent; vector[N] y;",
        "vector[N] z;",
        [{"N": 2, "parent": [1, 1], "y": [1, 2]}, {"N": 1, "parent": [1], "y": [3]}],
        r"may hold numbers of N.*or counts.*slicing={'parent': 'unit'} for counts",
    ),
    "rows of no unit": (
        "int N; int J; array[N] int<lower=0, upper=J> g; vector[N] y;",
        "vector[J] a;",
        [{"N": 3, "J": 2, "g": [2, 1, 0], "y": [1, 2, 3]}, {"N": 1, "J": 1, "g": [1], "y": [4]}],
        "row 3 of N in a.json belongs to no unit",
    ),
    "starts that may be something else": (
        "int J; int N; array[J] int start; vector[N] y;",
        "vector[J] a;",
        [
            {"J": 3, "N": 6, "start": [1, 3, 4], "y": [1, 2, 3, 4, 5, 6]},
            {"J": 2, "N": 5, "start": [1, 2], "y": [1, 2, 3, 4, 5]},
        ],
        "nothing but `start` may say which rows of N.*upper=N> start",
    ),
    "starts from 0 and from 1": (
        "int J; int N; array[J] int start; array[J] int n; vector[N] y;",
        "vector[J] a;",
        [
            {"J": 3, "N": 5, "start": [1, 3, 4], "n": [2, 1, 2], "y": [1, 2, 3, 4, 5]},
            {"J": 2, "N": 3, "start": [0, 1], "n": [1, 2], "y": [5, 6, 7]},
        ],
        "joined, With start and n as 'start' and 'sizes' of the 8 rows of N, row 5 would belong to two units",
    ),
    "rows of two units": (
        "int N; int E; array[E] int<lower=1, upper=N> i; array[E] int<lower=1, upper=N> j; vector[N] y;",
        "vector[N] z;",
        [
            {"N": 3, "E": 2, "i": [1, 2], "j": [2, 3], "y": [1, 2, 3]},
            {"N": 2, "E": 1, "i": [1], "j": [2], "y": [4, 5]},
        ],
        "in a.json, j gives row 1 of E to unit 2",
    ),
    "a constraint on all units": (
        "int N; simplex[N] y;",
        "vector[N] z;",
        [{"N": 2, "y": [0.5, 0.5]}, {"N": 1, "y": [1]}],
        "is no simplex: its entries must sum to 1, not 2",
    ),
    "only empty files": (
        "int N; real t; vector[N] y;",
        "vector[N] z;",
        [{"N": 0, "t": 1, "y": []}, {"N": 0, "t": 2, "y": []}],
        "no file has a unit, and yet they differ",
    ),
    "no units": (
        "int N; vector[N] y;",
        "real m;",
        [{"N": 2, "y": [1, 2]}, {"N": 1, "y": [3]}],
        "no parameter of model has a size that the data give",
    ),
    "a size of transformed data": (
        "int N; array[N] int g; } transformed data { int J = max(g);",
        "vector[J] a;",
        [{"N": 2, "g": [1, 2]}, {"N": 1, "g": [1]}],
        "is computed in transformed data",
    ),
    "an equal number by accident": (
        "int N; int K; vector[N] y; vector[K] w;",
        "vector[N] z;",
        [{"N": 2, "K": 2, "y": [1, 2], "w": [1, 1]}, {"N": 2, "K": 2, "y": [1, 3], "w": [1, 2]}],
        "`w` differs between a.json and b.json",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_not_be_joined_is_named(name):
    declarations, parameters, parts, message = REFUSED[name]
    with pytest.raises(DataError, match=message):
        joined(declarations, parameters, *parts)


# ---- Files -------------------------------------------------------------------------------------------------


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """Eleven files of 2 units; x of file k is [2k - 1, 2k]."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "parts").mkdir()
    for k in range(1, 12):
        text = json.dumps({"N": 2, "x": [2 * k - 1, 2 * k], "tau": 0.5})
        (tmp_path / "parts" / f"p{k}.json").write_text(text)
    return tmp_path / "parts"


def test_a_pattern_finds_files_in_natural_order(parts):
    program = Program.from_code(LINEAR)
    data = read(program, "parts/*.json")
    assert values(data) == {"N": 22, "x": list(range(1, 23)), "tau": 0.5}
    assert data.source == "11 files (parts/p1.json to parts/p11.json)"
    assert values(read(program, [parts / "p1*.json", "parts/p2.json"]))["x"] == [1, 2, 19, 20, 21, 22, 3, 4]


def test_files_of_a_list_keep_their_order_and_may_be_compressed(parts):
    (parts / "z.json.gz").write_bytes(gzip.compress((parts / "p3.json").read_bytes()))
    data = read(Program.from_code(LINEAR), [parts / "z.json.gz", "parts/p1.json"])
    assert values(data)["x"] == [5, 6, 1, 2]
    assert values(read(Program.from_code(LINEAR), "parts/*.json.gz"))["x"] == [5, 6]


def test_one_file_in_a_list_is_that_file(parts):
    program = Program.from_code(LINEAR)
    alone = read(program, ["parts/p2.json"])
    assert alone == read(program, "parts/p2.json")
    assert alone.source == "parts/p2.json"
    assert values(read(program, {"N": 0, "tau": 1})) == {"N": 0, "x": [], "tau": 1}


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(parts):
    (parts / "p[1].json").write_text((parts / "p4.json").read_text())
    assert values(read(Program.from_code(LINEAR), "parts/p[1].json"))["x"] == [7, 8]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "empty list"),
        ("parts/*.jsn", r"no file matches parts/\*.jsn"),
        (["parts/p1.json", "parts/q1.json"], "there is no data file parts/q1.json"),
        (["parts/p1.json", "parts/../parts/p1.json"], "p1.json is given twice"),
        (["parts/p1.json", {"N": 1}], "a list that holds a dict"),
    ],
)
def test_lists_of_files_that_are_no_data(parts, data, message):
    with pytest.raises(DataError, match=message):
        read(Program.from_code(LINEAR), data)


def test_a_file_that_is_not_of_the_program_is_named(parts):
    (parts / "p5.json").write_text('{"N": 2, "y": [1, 2], "tau": 0.5}')
    with pytest.raises(DataError, match=r"no entry `x`.*parts/p5.json"):
        read(Program.from_code(LINEAR), "parts/*.json")
    (parts / "p5.json").write_text('{"N": 3, "x": [1, 2], "tau": 0.5}')
    with pytest.raises(DataError, match=r"`x` has shape \(2,\).*parts/p5.json"):
        read(Program.from_code(LINEAR), "parts/*.json")


def test_entries_that_are_not_used_are_warned_about_once(parts):
    for file in ("p1", "p2"):
        (parts / f"{file}.json").write_text('{"N": 1, "x": [1], "tau": 0.5, "note": 3}')
    with pytest.warns(DataWarning, match="`note`") as caught:
        read(Program.from_code(LINEAR), ["parts/p1.json", "parts/p2.json"])
    assert len(caught) == 1


def test_zarr_groups_are_joined_like_files(tmp_path):
    for k, x in enumerate(([1.0, 2.0], [3.0]), start=1):
        group = zarr.open_group(tmp_path / f"part{k}.zarr", mode="w")
        group.create_array("x", data=np.array(x))
        group.create_array("tau", data=np.array(0.5))
    data = read(Program.from_code(LINEAR), str(tmp_path / "part*.zarr"))
    assert values(data) == {"N": 3, "x": [1, 2, 3], "tau": 0.5}


def test_many_units_take_seconds(tmp_path):
    rng = np.random.default_rng(1)
    program = bind(LINEAR, {"N": 0, "tau": 1}).program
    whole = rng.normal(size=200_000)
    for k, x in enumerate(np.split(whole, 10)):
        (tmp_path / f"{k}.json").write_text(json.dumps({"N": len(x), "x": x.tolist(), "tau": 1}))
    data = read(program, tmp_path / "*.json")
    assert np.array_equal(data["x"], whole)


# ---- The front doors ---------------------------------------------------------------------------------------


def test_a_model_and_the_command_line_read_several_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = avi.models_root() / "linear" / "linear.stan"
    whole = simulator("linear")(N=60)
    for k, units in enumerate((slice(0, 10), slice(10, 35), slice(35, 60)), start=9):
        x = np.asarray(whole["x"])[units].tolist()
        (tmp_path / f"part{k}.json").write_text(json.dumps(whole | {"N": len(x), "x": x}))
    (tmp_path / "whole.json").write_text(json.dumps(whole))
    model = avi.Model(file, data="part*.json")
    assert model.data == avi.Model(file, data=whole).data

    def inspected_units(*data):
        result = CliRunner().invoke(app, ["inspect", str(file), *data, "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    expected = inspected_units("whole.json")
    assert expected["level"]["units"] == 60
    assert inspected_units("part*.json") == expected
    assert inspected_units("part9.json", "part10.json", "part11.json") == expected
    refused = CliRunner().invoke(app, ["inspect", str(file), "part9.json", "part9.json"])
    assert refused.exit_code == 2
    assert "given twice" in refused.stderr
