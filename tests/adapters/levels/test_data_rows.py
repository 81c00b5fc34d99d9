"""What declared data say of the entries of a container: one program per kind of evidence."""

import numpy as np
import pytest

from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.stan_data import read_data
from stan_adapters.language.program import Program
from stan_adapters.levels.data_rows import RowEvidence, Rows, data_rows
from stan_adapters.levels.levels import Level, candidate_levels

SIZES = "int N; int K; int V;"
DATA = {"N": 30, "K": 3, "V": 4}
X, Y = np.zeros((30, 3)), np.zeros(30)
COUNTING = np.resize([1, 2, 3], 30)

# data beside the sizes, its values, transformed data, parameters, the level, the evidence and who gives it
TABLE = {
    "an index array": (
        "array[N] int<lower=1, upper=K> g;",
        {"g": COUNTING},
        "",
        "vector[K] a;",
        "K",
        "INDEXED",
        ["g"],
    ),
    "a row for each": ("vector[N] y;", {"y": Y}, "", "vector[N] a;", "N", "ROWS", ["y"]),
    "the rows of a table": ("matrix[N, K] y;", {"y": X}, "", "vector[N] a;", "N", "ROWS", ["y"]),
    "the columns of counts": ("array[N, K] int y;", {"y": X}, "", "vector[K] a;", "K", "ROWS", ["y"]),
    "the columns of a design": ("matrix[N, K] X;", {"X": X}, "", "vector[K] a;", "K", "COLUMNS", ["X"]),
    "the rows of a design that lies across": (
        "matrix[K, N] X; vector[N] y;",
        {"X": X.T, "y": Y},
        "",
        "vector[K] a;",
        "K",
        "COLUMNS",
        ["X"],
    ),
    "the rows of a table without a number of columns elsewhere": (
        "matrix[K, N] Z; vector[K] y;",
        {"Z": X.T, "y": Y[:3]},
        "",
        "vector[K] a;",
        "K",
        "ROWS",
        ["Z", "y"],
    ),
    "priors of a stochastic matrix for each": (
        "array[K] matrix[V, V] beta; array[N] int<lower=1, upper=K> g;",
        {"beta": np.ones((3, 4, 4)), "g": COUNTING},
        "",
        "array[K, V] simplex[V] a;",
        "K",
        "INDEXED",
        ["g"],
    ),
    "a size that a switch chooses": (
        "int has; vector[has ? N : 0] w;",
        {"has": 1, "w": Y},
        "",
        "vector[has ? N : 0] a;",
        "N",
        "ROWS",
        ["w"],
    ),
    "a square matrix is no design": ("matrix[K, K] D;", {"D": X[:3]}, "", "vector[K] a;", "K", "ROWS", ["D"]),
    "coefficients for each category": (
        "matrix[N, K] X; array[N] int<lower=1, upper=V> y;",
        {"X": X, "y": np.ones(30, int)},
        "",
        "matrix[V, K] a;",
        "V",
        "COLUMNS",
        ["X"],
    ),
    "one less than the rows": (
        "vector[V] y;",
        {"y": Y[:4]},
        "",
        "vector[V - 1] a;",
        "V - 1",
        "RELATED",
        ["y"],
    ),
    "most of the rows": ("vector[N] y;", {"y": Y}, "int M = 20;", "vector[M] a;", "M", "RELATED", ["y"]),
    "one less, computed": ("vector[N] y;", {"y": Y}, "int M = N - 1;", "vector[M] a;", "M", "RELATED", ["y"]),
    "the sum of two arrays": (
        "vector[N] y; vector[K] x;",
        {"y": Y, "x": X[0]},
        "int M = N + K;",
        "vector[M] a;",
        "M",
        "RELATED",
        ["y", "x"],
    ),
    "a computed number of coefficients": (
        "vector[N] y;",
        {"y": Y},
        "int M = 5;",
        "vector[M] a;",
        "M",
        "NONE",
        [],
    ),
    "an index without bounds": (
        "array[N] int g;",
        {"g": COUNTING},
        "",
        "vector[K] a;",
        "K",
        "NUMBERED",
        ["g"],
    ),
    "an index into a literal size": (
        "array[N] int g;",
        {"g": COUNTING},
        "",
        "vector[3] a;",
        "3",
        "NUMBERED",
        ["g"],
    ),
    "counts that begin at zero": (
        "array[N] int y;",
        {"y": COUNTING - 1},
        "",
        "vector[3] a;",
        "3",
        "NONE",
        [],
    ),
    "components of a mixture": (
        "vector[N] y;",
        {"y": Y},
        "",
        "simplex[K] w; vector[K] a;",
        "K",
        "COMPONENTS",
        ["w"],
    ),
    "no data": ("", {}, "", "vector[K] a;", "K", "NONE", []),
}


@pytest.mark.parametrize(
    ("data", "values", "transformed", "parameters", "level", "role", "names"),
    TABLE.values(),
    ids=TABLE.keys(),
)
def test_the_declarations_give_the_evidence(data, values, transformed, parameters, level, role, names):
    program = Program.from_code(
        f"data {{ {SIZES} {data} }} transformed data {{ {transformed} }} parameters {{ {parameters} }}"
    )
    with BoundModel(program, read_data(program, DATA | values)) as model:
        found = next(candidate for candidate in candidate_levels(model.layout) if candidate.name == level)
        rows = data_rows(model, found)
    assert rows.evidence is RowEvidence[role]
    assert list(rows.names) == names


BELONGS = {  # role: separable, dense, band; then separable and band with a literal size
    RowEvidence.INDEXED: (True, True, True, True, True),
    RowEvidence.ROWS: (True, True, True, True, True),
    RowEvidence.RELATED: (True, True, True, True, True),
    RowEvidence.NUMBERED: (True, False, True, True, True),
    RowEvidence.COLUMNS: (True, False, False, False, False),
    RowEvidence.NONE: (True, False, True, False, False),
    RowEvidence.COMPONENTS: (False, False, False, False, False),
}


@pytest.mark.parametrize("role", RowEvidence)
def test_evidence_and_probes_together_say_whether_entries_are_units(role):
    named, literal = (Level(name, (), np.zeros((7, 1), np.int64)) for name in ("J", "7"))
    rows = Rows(role)
    found = [rows.belong_to_units(named, shape) for shape in (None, "dense", "band")]
    found += [rows.belong_to_units(literal, shape) for shape in (None, "band")]
    assert tuple(found) == BELONGS[role]
