"""Data in tables: a row per observation or unit, groups numbered, sizes counted; what is ambiguous is named."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
import zarr

import avistan as avi
from programs import simulator
from sliced_cases import values
from stan_adapters.errors import DataError
from stan_adapters.language.program import Program
from stan_adapters.sources import read

GROUPED = """
data {
  int<lower=0> N; int<lower=0> J; array[N] int<lower=1, upper=J> g; vector[N] y; vector[J] w; real tau;
}
parameters { vector[J] a; }
model { a ~ normal(w, tau); y ~ normal(a[g], 1); }
"""
KNOWN = {"N": 5, "J": 3, "g": [2, 1, 2, 3, 3], "y": [1, 2, 3, 4, 5], "w": [10, 20, 30], "tau": 0.5}
ROWS = {"g": [2, 1, 2, 3, 3], "y": [1.0, 2.0, 3.0, 4.0, 5.0]}
WORDS = ["b", "a", "b", "c", "c"]


@pytest.fixture
def files(tmp_path, monkeypatch, require):
    """`files(name=columns, ...)` writes tables `name.parquet` and beside them shared.json with tau."""
    arrow, parquet = require("pyarrow"), require("pyarrow.parquet")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shared.json").write_text('{"tau": 0.5}')

    def write(**tables):
        for name, columns in tables.items():
            table = (
                arrow.Table.from_pandas(columns)
                if isinstance(columns, pd.DataFrame)
                else arrow.table(columns)
            )
            parquet.write_table(table, tmp_path / f"{name}.parquet")
        return [*(f"{name}.parquet" for name in tables), "shared.json"]

    return write


def entries(paths, code=GROUPED, **options):
    return values(read(Program.from_code(code), paths, **options))


# ---- Known answers -----------------------------------------------------------------------------------------


def test_columns_of_rows_and_of_groups_in_one_table(files):
    assert entries(files(rows=ROWS | {"w": [20, 10, 20, 30, 30]})) == KNOWN


def test_a_number_may_be_a_constant_column(files):
    files(rows=ROWS | {"w": [20, 10, 20, 30, 30], "tau": [0.5] * 5})
    assert entries("rows.parquet") == KNOWN


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_csv_files_are_tables(files, tmp_path, suffix):
    files()
    frame = pd.DataFrame(ROWS | {"w": [20, 10, 20, 30, 30], "note": ["a", "b, c", "", "NA", "e"]})
    frame.to_csv(tmp_path / f"rows{suffix}")  # with the rows' names, as R's write.csv
    assert entries([f"rows{suffix}", "shared.json"]) == KNOWN


def test_fields_of_a_csv_file_that_are_empty_or_na_are_missing(files, tmp_path):
    files()
    for field in ("", "NA"):
        (tmp_path / "rows.csv").write_text(f"g,x,y\n1,1,0.5\n1,2,{field}\n")
        with pytest.raises(DataError, match=r"column y of rows.csv has 1 missing values"):
            entries(["rows.csv", "shared.json"])


def test_a_second_table_has_the_groups_in_order(files):
    assert entries(files(rows=ROWS, groups={"w": [10, 20, 30]})) == KNOWN


def test_a_second_table_has_the_groups_by_their_number(files):
    assert entries(files(rows=ROWS, groups={"g": [3, 1, 2], "w": [30, 10, 20]})) == KNOWN


@pytest.mark.parametrize("kind", ["str", "category"])
def test_labels_are_numbered_in_sorted_order_and_kept(files, kind):
    rows = pd.DataFrame({"g": WORDS, "y": ROWS["y"]}).astype({"g": kind})
    groups = pd.DataFrame({"g": list("cab"), "w": [30.0, 10.0, 20.0]}).astype({"g": kind})
    data = read(Program.from_code(GROUPED), files(rows=rows, groups=groups))
    assert values(data) == KNOWN
    assert data.labels["g"].tolist() == ["a", "b", "c"]
    assert data.replace(tau=1.0).labels == {}


def test_a_group_without_rows_is_numbered_with_the_others(files):
    found = entries(files(rows={"g": ["b", "d"], "y": [1, 2]}, groups={"g": ["d", "c", "b"], "w": [3, 2, 1]}))
    assert (found["J"], found["g"], found["w"]) == (3, [1, 3], [1, 2, 3])


def test_two_indices_of_the_same_units_are_numbered_together(files):
    code = """data { int N; int T; array[N] int<lower=1, upper=T> home; array[N] int<lower=1, upper=T> away; }
    parameters { vector[T] skill; }"""
    files(games={"home": ["b", "a", "b"], "away": ["a", "d", "d"]})
    assert entries("games.parquet", code) == {"N": 3, "T": 3, "home": [2, 1, 2], "away": [1, 3, 3]}


NESTED = """data { int N; int S; int C; array[N] int<lower=1, upper=S> s; vector[N] y;
  array[S] int<lower=1, upper=C> c; vector[S] age; vector[C] size; }
parameters { vector[S] a; vector[C] b; }"""
SCHOOL = {
    "N": 4,
    "S": 3,
    "C": 2,
    "s": [2, 1, 3, 1],
    "y": [1, 2, 3, 4],
    "c": [2, 1, 2],
    "age": [7, 8, 9],
    "size": [100, 200],
}


def test_nested_groups_in_one_table(files):
    columns = {"s": [2, 1, 3, 1], "y": [1, 2, 3, 4], "c": [1, 2, 2, 2]}
    files(rows=columns | {"age": [8, 7, 9, 7], "size": [100, 200, 200, 200]})
    assert entries("rows.parquet", NESTED) == SCHOOL


def test_nested_groups_in_tables_of_their_own(files):
    paths = files(
        rows={"s": ["q", "p", "r", "p"], "y": [1, 2, 3, 4]},
        students={"s": ["r", "p", "q"], "c": ["Y", "Y", "X"], "age": [9, 7, 8]},
        classes={"c": ["Y", "X"], "size": [200, 100]},
    )
    assert entries(paths[:3], NESTED) == SCHOOL


def test_matrices_are_lists_or_numbered_columns(files):
    code = "data { int N; int K; matrix[N, K] x; array[N, K] int v; } parameters { vector[N] z; }"
    files(rows={"x.2": [2.0, 4.0], "other": ["s", "t"], "x.1": [1.0, 3.0], "v": [[5, 6], [7, 8]]})
    assert entries(["rows.parquet"], code) == {"N": 2, "K": 2, "x": [[1, 2], [3, 4]], "v": [[5, 6], [7, 8]]}


def test_tables_with_the_same_columns_are_put_under_each_other(files):
    files(
        part2={"g": ["b", "c"], "y": [3, 4]},
        part10={"g": ["c"], "y": [5]},
        part1={"g": ["b", "a"], "y": [1, 2]},
    )
    files(groups={"g": ["a", "b", "c"], "w": [10, 20, 30]})
    data = read(Program.from_code(GROUPED), ["part*.parquet", "groups.parquet", "shared.json"])
    assert values(data) == KNOWN
    assert data.source == "part1.parquet, part2.parquet, part10.parquet, groups.parquet, shared.json"


def test_numbers_that_start_again_in_every_file_need_the_number_of_groups(files, tmp_path):
    part = {"g": [1, 2], "y": [1.0, 2.0], "w": [7.0, 8.0]}
    paths = files(part1=part, part2=part)
    with pytest.raises(
        DataError, match=r"`g` counts from 1 in each of part1.parquet to part2.parquet.*give `J`"
    ):
        entries(paths)
    (tmp_path / "shared.json").write_text('{"tau": 0.5, "J": 2}')
    assert entries(paths)["g"] == [1, 2, 1, 2]
    files(part2={"g": [3, 2], "y": [3.0, 4.0], "w": [9.0, 8.0]})
    (tmp_path / "shared.json").write_text('{"tau": 0.5}')
    assert entries(paths)["J"] == 3


def test_integers_that_are_not_all_there_need_the_number_of_groups(files, tmp_path):
    paths = files(rows={"g": [1, 4], "y": [1, 2]})
    with pytest.raises(DataError, match=r"`g` holds 2 different numbers from 1 to 4, not 1 to 2. Give `J`"):
        entries(paths)
    (tmp_path / "shared.json").write_text(json.dumps({"tau": 1, "J": 4, "w": [1, 2, 3, 4]}))
    assert entries(paths)["J"] == 4
    (tmp_path / "shared.json").write_text(json.dumps({"tau": 1, "w": [1, 2, 3, 4]}))
    assert entries(paths)["J"] == 4


def test_a_zarr_group_holds_entries(tmp_path):
    group = zarr.open_group(tmp_path / "data.zarr", mode="w")
    for name, value in (KNOWN | {"g": WORDS, "more": [1]}).items():
        if name not in ("N", "J"):
            group.create_array(name, data=np.array(value))
    data = read(Program.from_code(GROUPED), tmp_path / "data.zarr")
    assert values(data) == KNOWN
    assert data.labels["g"].tolist() == ["a", "b", "c"]


def test_a_zarr_group_beside_a_table(files, tmp_path):
    files(rows=ROWS)
    group = zarr.open_group(tmp_path / "groups.zarr", mode="w")
    group.create_array("w", data=np.array(KNOWN["w"]))
    assert entries(["rows.parquet", "groups.zarr", "shared.json"]) == KNOWN


def test_labels_of_joined_groups_follow_their_units(tmp_path):
    code = "data { int N; int J; array[N] int<lower=1, upper=J> g; vector[N] y; } parameters { vector[J] a; }"

    def write(name, words):
        group = zarr.open_group(tmp_path / name, mode="w")
        group.create_array("g", data=np.array(words))
        group.create_array("y", data=np.arange(float(len(words))))

    write("1.zarr", ["c", "a", "c"])
    write("2.zarr", ["b", "b"])
    data = read(Program.from_code(code), tmp_path / "*.zarr")
    assert values(data)["g"] == [2, 1, 2, 3, 3]
    assert data.labels["g"].tolist() == ["a", "c", "b"]
    write("2.zarr", ["b", "a"])
    with pytest.raises(DataError, match="unit 'a' of `g` is in two of them"):
        read(Program.from_code(code), tmp_path / "*.zarr")


def test_a_model_of_a_table_is_that_of_the_mapping(files):
    given = simulator("linear")(N=20)
    files(rows={"x": given["x"]})
    shared = {name: value for name, value in given.items() if name not in ("N", "x")}
    with open("shared.json", "w") as file:
        json.dump(shared, file)
    program = avi.models_root() / "linear" / "linear.stan"
    assert (
        avi.Model(program, data=["rows.parquet", "shared.json"]).data == avi.Model(program, data=given).data
    )


# ---- What is ambiguous or wrong ----------------------------------------------------------------------------

REFUSED = {
    "differs within a group": (
        {"rows": ROWS | {"w": [20, 10, 21, 30, 30]}},
        "`w` is declared `vector.J. w`, one for each g, and differs within g 2 in rows.parquet: rows 1 and 3",
    ),
    "differs within a label": (
        {"rows": {"g": WORDS, "y": ROWS["y"], "w": [20, 10, 20, 30, 31]}},
        "differs within g 'c' in rows.parquet: rows 4 and 5",
    ),
    "a number that varies": (
        {"rows": ROWS | {"w": [20, 10, 20, 30, 30], "J": [3, 3, 3, 3, 2]}},
        "`J` is declared `int<lower=0> J`, one number, and column J of rows.parquet holds several",
    ),
    "no index": (
        {"rows": {"y": [1, 2], "w": [3, 4]}},
        r"rows.parquet has columns of N \(y\) and of J \(w\), and no column says",
    ),
    "a group without values": (
        {"rows": ROWS, "groups": {"g": [1, 2], "w": [1, 2]}},
        "groups.parquet has no row of g 3, and so no `w` of it",
    ),
    "labelled groups in unknown order": (
        {"rows": {"g": WORDS, "y": ROWS["y"]}, "groups": {"w": [1, 2, 3]}},
        "groups.parquet has a row for each of J, which have labels elsewhere. Add `g` to it",
    ),
    "labels and numbers": (
        {"rows": {"g": WORDS, "y": ROWS["y"]}, "groups": {"g": [1, 2, 3], "w": [1, 2, 3]}},
        "`g` holds labels and `g` numbers",
    ),
    "given twice": (
        {"rows": ROWS | {"w": [20, 10, 20, 30, 30]}, "groups": {"g": [1, 2, 3], "w": [1, 2, 3]}},
        "`w` is in rows.parquet and in groups.parquet",
    ),
    "given beside the table": (
        {"rows": ROWS | {"tau": [1, 1, 1, 1, 1]}, "groups": {"w": [1, 2, 3]}},
        "`tau` is in a file beside the tables and in rows.parquet",
    ),
    "missing values": (
        {"rows": {"g": [1, 2], "y": [1.0, None]}},
        "column y of rows.parquet has 1 missing values",
    ),
    "words for numbers": ({"rows": {"g": [1, 2], "y": ["1", "2"]}}, "`y` holds words such as '1'"),
    "dates": (
        {"rows": {"g": [1, 2], "y": np.array(["2026-01-01", "2026-01-02"], "datetime64[s]")}},
        "column y of rows.parquet holds timestamp",
    ),
    "broken numbers of groups": (
        {"rows": {"g": [1.0, 1.5], "y": [1, 2]}},
        "`g` numbers groups.*holds float64",
    ),
    "lists of different lengths": (
        {"rows": {"g": [1, 2], "y": [[1.0], [1.0, 2.0]]}},
        "lists of 1 and of 2 entries",
    ),
    "columns of nothing": ({"rows": {"height": [1, 2]}}, "nothing in rows.parquet is a data entry.*height"),
    "an entry that is nowhere": ({"rows": ROWS}, r"no entry `w`.*Add it to rows.parquet, shared.json"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_tables_that_are_no_data_say_what_is_missing(files, name):
    tables, message = REFUSED[name]
    with pytest.raises(DataError, match=message):
        entries(files(**tables))


def test_labels_and_a_number_of_groups_must_agree(files, tmp_path):
    paths = files(rows={"g": WORDS, "y": ROWS["y"]})
    (tmp_path / "shared.json").write_text(json.dumps({"tau": 1, "J": 4, "w": [1, 2, 3, 4]}))
    with pytest.raises(DataError, match="`J` is 4, and `g` has 3 labels"):
        entries(paths)


def test_gaps_between_numbered_columns_are_refused(files):
    code = "data { int N; int K; matrix[N, K] x; } parameters { vector[N] z; }"
    files(rows={"x.1": [1.0], "x.3": [2.0]})
    with pytest.raises(DataError, match=r"has the columns x.1, x.3: expected x.1, x.2 alone"):
        entries("rows.parquet", code)


def test_files_that_can_not_be_read_are_named(files, tmp_path):
    (tmp_path / "rows.parquet").write_text("no table")
    with pytest.raises(DataError, match=r"can't read the table rows.parquet"):
        entries("rows.parquet")
    with pytest.raises(DataError, match=r"can't read the table none.parquet"):
        entries("none.parquet")
    (tmp_path / "rows.csv.gz").write_text("height\n1\n")
    with pytest.raises(DataError, match=r"rows.csv.gz: it is called .gz, and is no gzip file"):
        entries("rows.csv.gz")
    with pytest.raises(DataError, match=r"can't read the zarr group none.zarr"):
        entries("none.zarr")
    zarr.open_group(tmp_path / "other.zarr", mode="w").create_array("height", data=np.ones(2))
    with pytest.raises(DataError, match=r"nothing in other.zarr is a data entry of model. It holds: height"):
        entries("other.zarr")


def test_without_pyarrow_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"pip install 'avistan\[tables\]'"):
        entries("rows.parquet")
