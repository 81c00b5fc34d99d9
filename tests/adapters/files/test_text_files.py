"""Damaged, endless and foreign files and values: each is one message with what is wrong, where, and what to do."""

import gzip
import io
import os
import random
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stan_adapters.data.stan_data import read_data
from stan_adapters.errors import AvistanError, DataError, ProgramError
from stan_adapters.files import text_files
from stan_adapters.language.program import Program
from stan_adapters.sources import read

VECTOR = Program.from_code("data { int<lower=0> N; vector[N] x; }", name="vector")
TUPLES = Program.from_code("data { array[2] tuple(int, real) t; }", name="tuples")
GOOD = "parameters { real x; } model { x ~ std_normal(); }\n"
PACKED = gzip.compress(b'{"N": 2, "x": [0.5, 1.5]}', mtime=0)
FLIPPED = PACKED[:14] + bytes([PACKED[14] ^ 255]) + PACKED[15:]


def refusal(function, *arguments, **named) -> str:
    """The one message of a refusal."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(AvistanError) as refused:
            function(*arguments, **named)
    message = str(refused.value)
    assert "\n" not in message
    assert not message.endswith("..")
    return message


# ---- Data files --------------------------------------------------------------------------------------------

FILES = {
    "lists within lists": (b'{"N": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "lists within lists"),
    "objects within objects": (b'{"N": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001, "lists within lists"),
    "an array of 70 axes": (b'{"N": 1, "x": ' + b"[" * 70 + b"1" + b"]" * 70 + b"}", "can't be read as an array"),
    "an integer of 5000 digits": (b'{"N": ' + b"1" * 5000 + b"}", "an integer of thousands of digits"),
    "an integer of 400 digits": (b'{"N": 1, "x": [' + b"1" * 400 + b"]}", "an integer beyond 1e308 at [1]"),
    "a real of 400 digits": (b'{"N": 1, "x": [' + b"1" * 400 + b".5]}", "the largest is 1.8e308"),
    "1e400": (b'{"N": 1, "x": [1e400]}', "has the number 1e400"),
    "-1E+0400": (b'{"N": 1, "x": [-1E+0400]}', 'Infinity is written as "Inf"'),
    "NaN for an integer": (b'{"N": NaN, "x": []}', "`N` is NaN"),
    "a word that is no number": (b'{"N": 1, "x": [infinite]}', "this is no JSON"),
    "null": (b'{"N": null, "x": []}', "`N` is missing (None)"),
    "a comment": (b'{"N": 1, /* x */ "x": [1]}', "bad.json:1:10: this is no JSON"),
    "a line comment": (b'// data\n{"N": 1}', "JSON has no comments"),
    "a comma at the end": (b'{"N": 1, "x": [1],}', "no comma after the last item"),
    "single quotes": (b"{'N': 1}", "double quotes"),
    "two objects": (b'{"N": 1} {"N": 2}', "bad.json:1:10: this is no JSON: Extra data"),
    "UTF-16": ('{"N": 0, "x": []}'.encode("utf-16"), "it looks like UTF-16. Save it as UTF-8"),
    "Latin-1": ('{"é": 0}'.encode("latin-1"), "byte 3 is no UTF-8"),
    "null bytes": (b"\0\0\0", "bad.json:1:1: this is no JSON"),
    "nothing": (b"", "bad.json:1:1: this is no JSON"),
    "blanks": (b"  \n", "this is no JSON"),
    "a list": (b"[1]", "holds a list, expected a JSON object"),
    "a string": (b'"x"', "holds a str, expected a JSON object"),
    "the word null": (b"null", "holds a NoneType, expected a JSON object"),
    "R's dump": (b"N <- 2\n", 'Data are one JSON object, such as {"N": 2'),
    "a name twice": (b'{"N": 0, "N": 0, "x": []}', "gives `N` more than once"),
    "a name twice within": (b'{"N": 1, "x": {"1": 2, "1": 3}}', "gives `1` more than once"),
    "an object for a number": (b'{"N": {"a": 1}, "x": []}', "`N` holds a dict, expected a number"),
    "objects in an array": (b'{"N": 1, "x": [{"a": 1}]}', "`x` holds a dict at [1]"),
    "a string for a number": (b'{"N": "3", "x": []}', "`N` holds the string '3', expected a number"),
    "a long string": (b'{"N": "' + b"a" * 100_000 + b'", "x": []}', "`N` holds the string 'aaaa"),
    "numbers beside lists": (b'{"N": 2, "x": [1, [2]]}', "`x` is ragged: [2] has 1 entries"),
    "ragged": (b'{"N": 2, "x": [[1], [2, 3]]}', "`x` is ragged: [2] has 2 entries"),
    "a fraction for an int": (b'{"N": 2.5, "x": []}', "`N` is 2.5: expected an integer"),
    "10^10 for an int": (b'{"N": 1e10, "x": []}', "Stan's int has 32 bits"),
    "2^31 for an int": (b'{"N": 2147483648, "x": []}', "`N` is 2147483648: Stan's int has 32 bits"),
    "2^63 for an int": (b'{"N": 9223372036854775808, "x": []}', "Stan's int has 32 bits"),
    "2^64 for an int": (b'{"N": 18446744073709551616, "x": []}', "Stan's int has 32 bits"),
    "a size of 2^31 - 1": (b'{"N": 2147483647, "x": [1]}', "expected shape (2147483647,)"),
    "half a gzip file": (PACKED[:-9], "its gzip content is damaged or incomplete"),
    "the head of a gzip file": (PACKED[:5], "its gzip content is damaged or incomplete"),
    "more after a gzip file": (PACKED + b"junk", "its gzip content is damaged or incomplete"),
    "a wrong checksum": (PACKED[:-8] + b"\0" * 8, "CRC check failed"),
    "a changed byte": (FLIPPED, "its gzip content is damaged or incomplete"),
    "gzipped twice": (gzip.compress(PACKED), "is no UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "helpful"), FILES.values(), ids=FILES)
def test_a_bad_data_file_is_one_message_that_names_it(content, helpful, tmp_path):
    file = tmp_path / "bad.json"
    file.write_bytes(content)
    message = refusal(read, VECTOR, file)
    assert helpful in message
    assert str(file) in message
    assert len(message) < 600


@pytest.mark.parametrize("content", [b"not packed", b"\xff\xfe\x80"], ids=["text", "bytes"])
@pytest.mark.parametrize("kind", ["gzip", "zip"])
def test_a_file_that_is_only_called_a_packed_one_is_told_from_a_wrong_one(tmp_path, content, kind):
    suffix = {"gzip": ".gz", "zip": ".zip"}[kind]
    file = tmp_path / f"data.json{suffix}"
    file.write_bytes(content)
    message = refusal(read, VECTOR, file)
    assert f"it is called {suffix}, and is no {kind} file. Pack it again" in message
    file.write_text('{"N": 1, "x": [2]}')
    assert read(VECTOR, file)["N"] == 1


def test_every_single_byte_change_of_a_gzip_file_is_the_same_data_or_one_message(tmp_path):
    draws = random.Random(1)
    right = read(VECTOR, {"N": 2, "x": [0.5, 1.5]})
    messages = []
    for position in range(len(PACKED)):
        for value in draws.sample(range(256), 12):
            changed = bytearray(PACKED)
            changed[position] = value
            file = tmp_path / "changed.json.gz"
            file.write_bytes(changed)
            try:
                assert read(VECTOR, file) == right
            except DataError as error:
                messages.append(str(error))
    assert len(messages) > 100
    assert all(str(file) in message for message in messages)


UNHARMED = {
    "a byte order mark": b'\xef\xbb\xbf{"N": 1, "x": [2.5]}',
    "Windows' line ends": b'{"N": 1,\r\n "x": [2.5]}\r\n',
    "an integral float": b'{"N": 1.0, "x": [2.5]}',
    "zeros after a gzip file": gzip.compress(b'{"N": 1, "x": [2.5]}') + b"\0\0",
}


@pytest.mark.parametrize("content", UNHARMED.values(), ids=UNHARMED)
def test_what_only_looks_odd_is_read(content, tmp_path):
    (tmp_path / "odd.json").write_bytes(content)
    assert read(VECTOR, tmp_path / "odd.json")["x"].tolist() == [2.5]


def test_large_numbers_and_infinity_are_told_apart(tmp_path):
    (tmp_path / "d.json").write_text('{"N": 3, "x": [1e300, -Infinity, 1E-400]}')
    assert read(VECTOR, tmp_path / "d.json")["x"].tolist() == [1e300, -np.inf, 0.0]


def test_a_text_that_the_memory_does_not_hold_is_refused_while_it_is_unpacked(tmp_path, monkeypatch):
    (tmp_path / "d.json.gz").write_bytes(gzip.compress(b" " * 5_000_000))
    monkeypatch.setattr(text_files, "available_memory", lambda: 4_000_000)
    message = refusal(read, VECTOR, tmp_path / "d.json.gz")
    assert "longer than 1.9 MiB" in message
    assert "machine with more memory" in message


def test_a_pipe_is_read(tmp_path):
    read_end, write_end = os.pipe()
    os.write(write_end, b'{"N": 1, "x": [2.5]}')
    os.close(write_end)
    try:
        assert read(VECTOR, f"/dev/fd/{read_end}")["x"].tolist() == [2.5]
    finally:
        os.close(read_end)


PLACES = {
    "a folder": (".", "it is a folder"),
    "a device": ("/dev/null", "it is a device"),
    "nothing": ("", "it is a folder"),
    "a null character": ("a\0b", "embedded null byte"),
    "a long name": ("a" * 5000, "File name too long"),
    "a missing file": ("nearly.jsn", "Did you mean nearly.json?"),
    "an unknown folder": ("gone/d.json", "there is no data file gone/d.json"),
    "a pattern of nothing": ("*.none", "no file matches *.none in"),
    "no files": ([], "empty list"),
    "a list of None": ([None], "holds a NoneType, expected paths"),
    "a list of dicts": ([{"N": 1}], "Data in memory are one dict"),
    "a file twice": (["nearly.json", "nearly.json"], "is given twice"),
    "a number": (3, "data is a int"),
    "bytes": (b"nearly.json", "data is a bytes"),
    "a DataFrame": (pd.DataFrame({"N": [1]}), "Make a dict of it"),
    "an array": (np.zeros(3), "data is a ndarray"),
    "JSON itself": ('{"N": 1}', "this is JSON text"),
    "a missing zarr group": ("gone.zarr", "can't read the zarr group gone.zarr"),
    "a folder that is no zarr group": ("empty.zarr", "can't read the zarr group empty.zarr"),
    "a missing table": ("gone.parquet", "can't read the table gone.parquet"),
    "JSON called parquet": ("json.parquet", "can't read the table json.parquet"),
    "half a table": ("half.parquet", "can't read the table half.parquet"),
    "an empty table": ("none.parquet", "can't read the table none.parquet"),
}


@pytest.mark.parametrize(("place", "helpful"), PLACES.values(), ids=PLACES)
def test_a_bad_place_of_data_is_refused(place, helpful, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("nearly.json").write_text('{"N": 0, "x": []}')
    Path("json.parquet").write_text('{"N": 0, "x": []}')
    Path("none.parquet").write_bytes(b"")
    Path("empty.zarr").mkdir()
    whole = io.BytesIO()
    pd.DataFrame({"x": np.arange(1000.0)}).to_parquet(whole)
    Path("half.parquet").write_bytes(whole.getvalue()[:3000])
    assert helpful in refusal(read, VECTOR, place)


# ---- Values ------------------------------------------------------------------------------------------------


class Broken:
    """An object that fails as it becomes an array."""

    def __array__(self, *arguments, **named):
        raise RuntimeError("no array today")


class BrokenColumn:
    def to_numpy(self):
        raise RuntimeError("no column today")


ENDLESS: list = []
ENDLESS.append(ENDLESS)

VALUES = {
    "a list within itself": (ENDLESS, "can't be read as an array"),
    "an object that fails": (Broken(), "no array today"),
    "a column that fails": (BrokenColumn(), "no column today"),
    "None": (None, "is missing (None)"),
    "a missing entry": ([None, 1.0], "is missing (None) at [1]"),
    "pandas' NA": (pd.Series([None], dtype="Float64"), "a missing entry at [1]"),
    "a date": (np.array(["2020-01-01"], dtype="datetime64[D]"), "holds datetime64[D]"),
    "bytes": ([b"a"], "holds a bytes at [1]"),
    "a set": ({1.0}, "holds a set"),
    "a function": (len, "holds a builtin_function_or_method"),
    "a record": (np.zeros(1, dtype=[("a", float)]), "expected numbers"),
    "words": (pd.Series(["a"], dtype="category"), "holds the string 'a' at [1]"),
    "beyond doubles": ([10**400], "an integer beyond 1e308 at [1]"),
    "beyond doubles in long double": (np.array([np.longdouble("1e4000")]), "the largest double is 1.8e308"),
    "masked": (np.ma.array([1.0], mask=[1]), "has masked entries"),
    "complex": ([1j], "holds complex numbers"),
}  # fmt: skip


@pytest.mark.parametrize(("value", "helpful"), VALUES.values(), ids=VALUES)
def test_a_bad_value_is_one_message_that_names_its_entry(value, helpful):
    message = refusal(read_data, VECTOR, {"N": 1, "x": value})
    assert helpful in message
    assert "Declared `vector[N] x` with N = 1 at vector.stan:1:34" in message


TUPLE_VALUES = {
    "a word": ("ab", "is of type str"),
    "None": (None, "is of type NoneType"),
    "empty tuples": ([[], []], "has 0 entries, expected a tuple of 2 components (in [1])"),
    "other keys": ([{}, {}], "has the keys []"),
    "numbers": ([1, 2], "is of type int"),
    "a list within itself": (ENDLESS, "has 1 entries, expected a list of 2 tuples"),
}


@pytest.mark.parametrize(("value", "helpful"), TUPLE_VALUES.values(), ids=TUPLE_VALUES)
def test_a_bad_tuple_is_refused(value, helpful):
    assert helpful in refusal(read_data, TUPLES, {"t": value})


@pytest.mark.parametrize("key", [1, None, ("x",)], ids=str)
def test_names_of_entries_are_strings(key):
    assert "keys are the names of data entries" in refusal(read_data, VECTOR, {"N": 0, "x": [], key: 1})


# ---- Programs ----------------------------------------------------------------------------------------------

PROGRAMS = {
    "UTF-16": (GOOD.encode("utf-16"), "it looks like UTF-16"),
    "Latin-1": (b"// \xe9\n" + GOOD.encode(), "byte 4 is no UTF-8"),
    "half a gzip file": (gzip.compress(GOOD.encode())[:-9], "gzip content is damaged"),
    "a null byte": (b"\0" + GOOD.encode(), "p.stan:1:1: unexpected"),
    "an open block": (b"parameters { real x;", "ends too early"),
    "an open comment": (b"/* x", "`*/` is missing"),
    "another language": (b"import numpy\n", "p.stan:1:1: unexpected `import numpy`"),
    "a block twice": (b"parameters { real x; }\nparameters { real y; }", "p.stan:2:1"),
    "a name twice": (b"data { int N; } parameters { real N; }", "`N` is already declared at"),
    "a missing include": (b"#include gone.stan\n", "there is no such file"),
    "an include of nothing": (b'#include ""\n', "there is no such file"),
    "an include of itself": (b"#include p.stan\n", "includes itself"),
    "an include of a folder": (b"#include .\n", "there is no such file"),
    "a size of 5000 parentheses": (b"data { vector[%b1%b] x; }" % (b"(" * 5000, b")" * 5000), "a thousand parts"),
    "a size of 5000 terms": (b"data { int N; vector[" + b"+".join([b"N"] * 5000) + b"] x; }", "a thousand parts"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "helpful"), PROGRAMS.values(), ids=PROGRAMS)
def test_a_bad_program_is_one_message_that_names_its_file(content, helpful, tmp_path):
    file = tmp_path / "p.stan"
    file.write_bytes(content)
    message = refusal(Program.from_file, file)
    assert helpful in message
    assert str(file) in message


def test_includes_of_includes_without_end_are_refused(tmp_path):
    for number in range(300):
        (tmp_path / f"c{number}.stan").write_text(f"#include c{number + 1}.stan\n")
    assert "more than 100 files include one another" in refusal(Program.from_file, tmp_path / "c0.stan")


@pytest.mark.parametrize("ends", ["\r\n", "\r"], ids=["Windows", "old Macintosh"])
def test_line_ends_do_not_change_a_program(ends, tmp_path):
    text = GOOD.replace(" ", "\n")
    (tmp_path / "unix.stan").write_bytes(text.encode())
    (tmp_path / "other.stan").write_bytes(text.replace("\n", ends).encode())
    one, two = (Program.from_file(tmp_path / name) for name in ("unix.stan", "other.stan"))
    assert one.digest == two.digest


NO_PROGRAMS = {
    "None": (Program.from_file, None, "the program is a NoneType"),
    "a number": (Program.from_file, 3, "the program is a int"),
    "a list": (Program.from_file, ["p.stan"], "the program is a list"),
    "bytes": (Program.from_file, b"p.stan", "the program is a bytes"),
    "a folder": (Program.from_file, ".", "it is a folder"),
    "a device": (Program.from_file, "/dev/null", "it is a device"),
    "a null character": (Program.from_file, "a\0", "embedded null byte"),
    "text for a path": (Program.from_file, GOOD, "pass it as stan_code="),
    "text of None": (Program.from_code, None, "stan_code is a NoneType"),
    "text of bytes": (Program.from_code, b"x", "stan_code is a bytes"),
    "a path for text": (Program.from_code, Path("p.stan"), "stan_code is a PosixPath"),
}


@pytest.mark.parametrize(("function", "given", "helpful"), NO_PROGRAMS.values(), ids=NO_PROGRAMS)
def test_what_is_no_program_is_refused(function, given, helpful):
    with pytest.raises(ProgramError) as refused:
        function(given)
    assert helpful in str(refused.value)


INCLUDE_PATHS = {
    "a missing folder": (["gone"], "the include path gone is no folder of that name"),
    "a file": (["here.stan"], "the include path here.stan is a file"),
    "None": (None, "include_paths is a NoneType"),
    "a number": ([3], "include_paths holds a int"),
}


@pytest.mark.parametrize(("given", "helpful"), INCLUDE_PATHS.values(), ids=INCLUDE_PATHS)
def test_an_include_path_is_a_folder_that_is_there(given, helpful, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("here.stan").write_text(GOOD)
    with pytest.raises(ProgramError) as refused:
        Program.from_file("here.stan", given)
    assert helpful in str(refused.value)
