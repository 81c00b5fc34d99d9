"""R files of data, as R's `dump` and rstan's `stan_rdump` write them, are numbers and arrays; R code is refused."""

import gzip
import math
import zipfile

import numpy as np
import pytest

from stan_adapters.data.stan_data import read_data
from stan_adapters.errors import DataError
from stan_adapters.files.r_dump import is_r_dump, read_r_dump
from stan_adapters.language.program import Program

# What R 4's `dump(c("N", ...), "x.R")` and rstan's `stan_rdump` write.
WRITTEN = {
    "N <-\n5L": 5,
    "N <- 5": 5,
    "x = -2.5e-3": -0.0025,
    '"x" <-\n3.25': 3.25,
    "`my x` <- 1": 1,
    "x <- TRUE": 1,
    "x <- -Inf; ": -math.inf,
    "x <-\nc(1.5, -2, NaN,\n1e+05)": [1.5, -2, math.nan, 1e5],
    "x <- c(1L, 2L, -3L)": [1, 2, -3],
    "x <-\n1:3": [1, 2, 3],
    "x <- -1:1": [-1, 0, 1],
    "x <- 3:1": [3, 2, 1],
    "x <- c(1:3, 7, -1:0)": [1, 2, 3, 7, -1, 0],
    'x <- c(a = 1, `b c` = 2, "d" = 3)': [1, 2, 3],
    "x <- c(TRUE, FALSE)": [1, 0],
    "x <- c(1e5L, 0x10L)": [100000, 16],
    "x <- numeric(0)": [],
    "x <- integer(0)": [],
    "x <- c()": [],
    "x <- NULL": [],
    "x <- structure(1:6, dim = 2:3)": [[1, 3, 5], [2, 4, 6]],
    'x <- structure(1:6, dim = c(2L, 3L), dimnames = list(c("a", "b"), NULL))': [[1, 3, 5], [2, 4, 6]],
    "x <- \nstructure(c(1, 2, 3, 4), .Dim = c(2, 2))": [[1, 3], [2, 4]],
    "x <- structure(c(5), .Dim = c(1))": [5],
    "x <- structure(numeric(0), .Dim = c(0L, 3L))": np.zeros((0, 3)),
    'x <- structure(c(1, 2, 3), names = c("a", "b", "c"))': [1, 2, 3],
    "x <- as.integer(c(1, 2)) # years": [1, 2],
    "x <- structure(1:8, .Dim = c(2L, 2L, 2L))": [[[1, 5], [3, 7]], [[2, 6], [4, 8]]],
}


@pytest.mark.parametrize("text", WRITTEN)
def test_what_r_writes_is_what_it_held(tmp_path, text):
    (tmp_path / "x.R").write_text(f"# data\n{text}\n")
    (value,) = read_r_dump(tmp_path / "x.R").values()
    np.testing.assert_array_equal(np.asarray(value), WRITTEN[text])


def test_several_variables_are_read_by_their_names(tmp_path):
    (tmp_path / "x.data.R").write_text(
        "N <- 2\ny <-\nc(1.5, 2.5)\nz <- structure(c(1L, 2L), .Dim = c(1L, 2L)); k=3\n"
    )
    values = read_r_dump(tmp_path / "x.data.R")
    assert list(values) == ["N", "y", "z", "k"]
    assert np.asarray(values["z"]).dtype == np.int64


def test_very_long_vectors_are_read_as_they_stand(tmp_path):
    numbers = np.random.default_rng(0).normal(size=50_000)
    (tmp_path / "x.R").write_text(f"x <-\nc({', '.join(map(repr, numbers.tolist()))})\n")
    np.testing.assert_array_equal(read_r_dump(tmp_path / "x.R")["x"], numbers)


PROGRAM = Program.from_code(
    "data { int N; array[N] int<lower=0> g; vector[N] y; matrix[N, 2] m; vector[0] none; }", name="m"
)


def check(folder, text):
    (folder / "m.data.R").write_text(text)
    return read_data(PROGRAM, folder / "m.data.R")


def test_a_vector_of_length_one_may_be_written_as_a_number(tmp_path):
    data = check(
        tmp_path, "N <- 1; g <- 2L; y <- 0.5; m <- structure(c(1, 2), .Dim = c(1, 2)); none <- numeric(0)"
    )
    assert {name: np.asarray(value).tolist() for name, value in data.entries.items()} == {
        "N": 1,
        "g": [2],
        "y": [0.5],
        "m": [[1, 2]],
        "none": [],
    }


REST = 'm <- structure(1:4, .Dim = c(2, 2)); unused <- c("a", NA); frame <- structure(list(1:2), class = "data.frame")'
REFUSED = {
    "a missing value": (f"N <- 2; g <- c(1, NA); y <- c(1, 2); {REST}", r"`g` is missing \(None\) at \[2\]"),
    "a missing real": (f"N <- 2; g <- 1:2; y <- c(NA_real_, 2); {REST}", r"`y` is missing \(None\) at \[1\]"),
    "text": (f'N <- 2; g <- c("a", "b"); y <- c(1, 2); {REST}', "`g` holds the string 'a'"),
    "a factor": (
        f'N <- 2; g <- structure(1:2, levels = c("a", "b"), class = "factor"); y <- c(1, 2); {REST}',
        r"`g` is a factor of R; dump its numbers, as.integer\(g\)\.",
    ),
    "a list": (
        f"N <- 2; g <- list(1, c(2)); y <- c(1, 2); {REST}",
        r"`g` is an object of R; dump the numbers in it one by one, such as as.numeric\(g\$column\)",
    ),
    "a factor that is called": (
        f'N <- 2; g <- factor(c("a", "b")); y <- c(1, 2); {REST}',
        "`g` is a factor of R",
    ),
    "a data frame": (
        f'N <- 2; g <- structure(list(a = 1:2), class = "data.frame", row.names = 1:2); y <- 1:2; {REST}',
        "`g` is an object of R",
    ),
    "numbers in quotes": (
        f'N <- 2; g <- 1:2; y <- c("2.5", "b"); {REST}',
        r"the string '2.5' at \[1\], expected a number: write 2.5 without quotes",
    ),
    "a bracket left open": (
        "N <- 2\ny <- c(1,\n 2\ng <- 3\n",
        r"m.data.R:4: `g <- 3` begins within the value of `y`, a bracket of which is open: close it with `\)`",
    ),
    "a bracket of structure left open": (
        'N <- 2\ny <- structure(1:2, .Dim = c(2L)\n"g" <- 3\n',
        r"m.data.R:3: `\"g\" <- 3` begins within the value of `y`",
    ),
    "a number for two": (f"N <- 2; g <- 1:2; y <- 3; {REST}", "`y` is a single number"),
    "a sum": (f"N <- 1 + 1; {REST}", r"m.data.R:1: `\+ 1"),
    "a call": (f"N <- nrow(x); {REST}", r"m.data.R:1: `nrow\(x\)"),
    "a script": ("library(rstan)\nN <- 2", r"m.data.R:1: `\(rstan\)`"),
    "no end": (
        "N <- 2\ny <- c(1, 2",
        "ends within the value of `y`: close its bracket, or copy the file again",
    ),
    "a name twice": ("N <- 2\nN <- 3", "gives `N` more than once"),
    "too large": ("N <- 2\ny <- c(1e400, 1)", "`y` has the number 1e400"),
    "too large alone": ("N <- 2\ny <- -1e400", "`y` has the number 1e400"),
    "a wrong dim": (
        "N <- 2\ny <- structure(1:3, .Dim = c(2L, 2L))",
        "`y` has 3 numbers for an array of 2 x 2",
    ),
    "no number": ("y <- c(1-2, 3)", r"m.data.R:1: `c\(1-2, 3\)"),
    "JSON": ('{"N": 1}', r"m.data.R:1: `\{"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_data_is_refused_with_its_name_or_place(tmp_path, name):
    text, message = REFUSED[name]
    with pytest.raises(DataError, match=message):
        check(tmp_path, text)


def test_packed_files_are_read(tmp_path):
    with gzip.open(tmp_path / "a.data.R.gz", "wt") as packed:
        packed.write("N <- 3\n")
    with zipfile.ZipFile(tmp_path / "a.R.zip", "w") as archive:
        archive.writestr("a.R", "N <- 4\n")
    assert read_r_dump(tmp_path / "a.data.R.gz") == {"N": 3}
    assert read_r_dump(tmp_path / "a.R.zip") == {"N": 4}


def test_r_files_are_known_by_their_names(tmp_path):
    assert all(
        map(is_r_dump, (tmp_path / name for name in ("x.R", "x.data.R", "x.r", "x.data.R.gz", "x.rdump")))
    )
    assert not any(
        map(is_r_dump, (tmp_path / name for name in ("x.json", "x.R.json", "R", "x.gz", "data.Rds.json")))
    )
