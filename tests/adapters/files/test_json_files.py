"""JSON files as programs of other languages write them: bare words for numbers, packed files."""

import gzip
import math
import zipfile

import pytest

from stan_adapters.errors import DataError
from stan_adapters.files.json_files import read_json


def read(folder, text):
    (folder / "x.json").write_text(text)
    return read_json(folder / "x.json")


def test_words_for_infinity_and_nan_are_numbers_however_they_are_written(tmp_path):
    words = ["Inf", "-Inf", "+Inf", "inf", "Infinity", "-Infinity", "-infinity"]
    values = read(tmp_path, f'{{"Inf, NaN": "-Inf", "x": [{", ".join(words)}], "y": [NaN, nan, -nan]}}')
    assert values["Inf, NaN"] == "-Inf"
    assert values["x"] == [math.inf, -math.inf, math.inf, math.inf, math.inf, -math.inf, -math.inf]
    assert all(math.isnan(value) for value in values["y"])


@pytest.mark.parametrize("text", ['{"x": [Infinite]}', '{"x": [NA]}', '{"x": [Inf Inf]}', '{"x": [1,]}'])
def test_other_words_are_refused_with_their_place(tmp_path, text):
    with pytest.raises(DataError, match=r"x.json:1:\d+: this is no JSON"):
        read(tmp_path, text)


@pytest.mark.parametrize("number", ["1e400", "-1E+0400", "1" * 400 + ".5"])
def test_a_number_that_no_double_holds_is_refused(tmp_path, number):
    with pytest.raises(DataError, match=r"the largest is 1.8e308"):
        read(tmp_path, f'{{"x": {number}, "y": Inf}}')


def test_zipped_and_gzipped_files_are_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.json.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.json", '{"N": 3}')
        archive.writestr("__MACOSX/._x.json", "of macOS")
    with gzip.open(tmp_path / "x.json.gz", "wt") as packed:
        packed.write('{"N": 4}')
    assert read_json(tmp_path / "x.json.zip") == {"N": 3}
    assert read_json(tmp_path / "x.json.gz") == {"N": 4}


def test_a_zip_of_several_files_is_refused_with_their_names(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.json", "{}")
        archive.writestr("b.json", "{}")
    with pytest.raises(
        DataError, match=r"x.zip: the zip archive holds 2 files \(a.json, b.json\), expected one"
    ):
        read_json(tmp_path / "x.zip")


def test_a_damaged_zip_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.json", '{"N": 3}' * 100)
    (tmp_path / "x.zip").write_bytes((tmp_path / "x.zip").read_bytes()[:60])
    with pytest.raises(DataError, match="its zip archive can't be unpacked"):
        read_json(tmp_path / "x.zip")
