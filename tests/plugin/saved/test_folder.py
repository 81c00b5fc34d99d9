"""A saved fit is data, never code, and says when it was changed."""

import itertools
import json
import os
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest

import avistan as avi
from avistan.cli.fit_folder import put_diagnosis, read_diagnosis
from avistan.diagnosis.verdict import Check, Diagnosis, Trust, Variable
from avistan.runtime.errors import AvistanError, FitError
from avistan.saved.folder import ChangedFileWarning, forget_file, read_asked, record_file
from programs import bundled
from saved_fits import edits, sealed

NEW = {"J": 2, "y": [12.0, -3.0], "sigma": [10.0, 15.0]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("saved") / "fit"
    bundled("eight_schools").fit(method="avi:mlp(4)", steps=20, elbo_draws=20, chains=2).save(place)
    return place


def told(folder):
    """What a fit says of the posterior and of new units."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = avi.load(folder)
        theta, _ = fit.unconstrained_draws(3)
        predicted = fit.predict(NEW, 3)["predictions"]["theta"].values
    numbers = [
        theta.ravel(),
        predicted.ravel(),
        fit.evaluation.log_weights,
        [fit.elbo],
    ]
    return np.concatenate(numbers)


# -- edits ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("digests", "every"),
    [("as they were", 1), ("put right", 4), pytest.param("put right", 1, marks=pytest.mark.slow)],
)
def test_no_edit_of_a_folder_ends_in_a_raw_exception_or_in_other_numbers_without_a_word(
    folder, tmp_path, digests, every
):
    expected, wrong, count = told(folder), [], 0
    for name, edit in itertools.islice(edits(folder), 0, None, every):
        changed = tmp_path / "fit"
        shutil.copytree(folder, changed)
        edit(changed)
        if digests == "put right":
            sealed(changed)
        try:
            found = told(changed)
        except AvistanError:
            pass
        except BaseException as error:  # what this test is about
            wrong.append(f"{name}: {type(error).__name__}: {str(error)[:200]}")
        else:
            if not np.allclose(found, expected, rtol=1e-3, atol=1e-3):
                wrong.append(f"{name}: other numbers without a word")
            elif digests == "as they were":
                wrong.append(f"{name}: no word")
        shutil.rmtree(changed)
        count += 1
    assert not wrong, "\n".join(wrong)
    assert count > 150 / every


def test_the_file_that_was_changed_is_named(folder, tmp_path):
    for name in ("fit.json", "program.stan", "data.json", "arrays.npz"):
        changed = tmp_path / name
        shutil.copytree(folder, changed)
        content = (changed / name).read_bytes()
        (changed / name).write_bytes(content.replace(b"1", b"2", 1) if name.endswith("n") else content[:-1])
        with pytest.raises(FitError, match=rf"{name} is damaged: {name}: it was changed|no JSON"):
            avi.load(changed)


def test_a_fit_of_an_older_format_is_refused_by_name(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "fit")
    header = json.loads((tmp_path / "fit" / "fit.json").read_text())
    (tmp_path / "fit" / "fit.json").write_text(json.dumps(header | {"format": 5}))
    with pytest.raises(FitError, match="has format 5, this version of avistan reads 8: fit and save again"):
        avi.load(tmp_path / "fit")


def test_what_a_header_asks_for_is_refused_before_it_is_allocated(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "fit")
    header = json.loads((tmp_path / "fit" / "fit.json").read_text())
    (tmp_path / "fit" / "fit.json").write_text(json.dumps(header | {"method": "avi:mlp(100000)"}))
    sealed(tmp_path / "fit")
    with pytest.raises(FitError, match=r"needs \d+ bytes at least, and arrays.npz has"):
        avi.load(tmp_path / "fit")


# -- what is added later ----------------------------------------------------------------------------------------


def test_a_file_that_was_added_is_recorded_and_its_change_is_told(folder, tmp_path):
    place = tmp_path / "fit"
    shutil.copytree(folder, place)
    (place / "diagnosis.json").write_text('{"passed": false}')
    (place / "posterior.zarr" / "posterior").mkdir(parents=True)
    (place / "posterior.zarr" / "posterior" / "zarr.json").write_text("{}")
    for name in ("diagnosis.json", "posterior.zarr"):
        record_file(place, name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        avi.load(place)
    (place / "diagnosis.json").write_text('{"passed": true} ')
    with pytest.warns(ChangedFileWarning, match=r"diagnosis\.json was changed after it was saved"):
        avi.load(place)
    record_file(place, "diagnosis.json")
    (place / "posterior.zarr" / "posterior" / "zarr.json").write_text("[]")
    with pytest.warns(ChangedFileWarning, match=r"posterior\.zarr was changed"):
        avi.load(place)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fit"]


def test_a_file_that_is_forgotten_may_change_and_one_that_was_never_recorded_too(folder, tmp_path):
    place = tmp_path / "fit"
    shutil.copytree(folder, place)
    (place / "posterior.nc").write_bytes(b"never recorded")
    (place / "diagnosis.json").write_text("{}")
    record_file(place, "diagnosis.json")
    forget_file(place, "diagnosis.json")
    forget_file(place, "diagnosis.npz")
    (place / "diagnosis.json").write_text("[]")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        avi.load(place)


def test_how_a_fit_was_asked_for_is_kept_with_it(folder, tmp_path):
    asked = {"chains": 2, "family": None, "methods": ["avi"]}
    avi.load(folder).save(tmp_path / "fit", asked=asked)
    assert read_asked(tmp_path / "fit") == asked
    assert read_asked(folder) == {}


def test_nothing_is_recorded_in_a_header_that_was_changed_nor_of_a_file_of_the_fit_itself(folder, tmp_path):
    place = tmp_path / "fit"
    shutil.copytree(folder, place)
    (place / "diagnosis.json").write_text("{}")
    with pytest.raises(FitError, match="no file that lies with a saved fit"):
        record_file(place, "data.json")
    with pytest.raises(FitError, match="no file that lies with a saved fit"):
        record_file(place, "../fit/diagnosis.json")
    text = (place / "fit.json").read_text()
    (place / "fit.json").write_text(text.replace('"seed": 1', '"seed": 2'))
    with pytest.raises(FitError, match=r"fit\.json: it was changed"):
        record_file(place, "diagnosis.json")


def test_a_diagnosis_that_was_changed_counts_as_none_and_one_edited_on_purpose_never_fails_raw(
    folder, tmp_path
):
    place = tmp_path / "fit"
    shutil.copytree(folder, place)
    check = Check(name="globals", passed=False, finding="Off.", value=2.0, trouble=Trust.globals_misfit)
    variables = (Variable(name="mu", holds=False, error=np.inf),)
    units = {"conditional_error": np.array([0.5] * 8)}
    put_diagnosis(
        Diagnosis(
            program="p",
            method="avi",
            checks=(check,),
            units=units,
            variables=variables,
            level="J",
            seconds=1.5,
        ),
        place,
    )
    written = (place / "diagnosis.json").read_text()
    assert str(read_diagnosis(place)).startswith("avi fit of p: NO")
    (place / "diagnosis.json").write_text(written.replace('"passed": false', '"passed": true'))
    assert read_diagnosis(place) is None
    plain = json.loads(written)
    wrong = (None, [], "x", -1, 10**400, {"a": 1}, [{"name": 1}], float("nan"))
    edits = [plain | {name: value} for name in plain for value in wrong]
    edits += [{key: of for key, of in plain.items() if key != name} for name in plain]
    edits += [
        plain | {"checks": [plain["checks"][0] | {name: of}]} for name in plain["checks"][0] for of in wrong
    ]
    edits += [
        plain | {"variables": [plain["variables"][0] | {name: of}]}
        for name in plain["variables"][0]
        for of in wrong
    ]
    for edited in edits:
        (place / "diagnosis.json").write_text(json.dumps(edited))
        record_file(place, "diagnosis.json")
        found = read_diagnosis(place)
        assert found is None or (str(found) and found.to_json())
    (place / "diagnosis.json").write_text(written)
    record_file(place, "diagnosis.json")
    for units in (
        {"conditional_error": np.zeros((2, 2))},
        {"conditional_error": np.array(["a"])},
        {"a": np.zeros(3), "b": np.zeros(4)},
    ):
        np.savez(place / "diagnosis.npz", **units)
        record_file(place, "diagnosis.npz")
        assert read_diagnosis(place) is None


# -- no code ----------------------------------------------------------------------------------------------------

PAYLOAD = """
#include <cstdio>
#include <cstdlib>
struct Mark { Mark() { if (FILE* file = std::fopen(std::getenv("AVISTAN_TEST_MARK"), "w")) std::fclose(file); } };
static Mark mark;
"""


def with_engine(folder, engine, library=""):
    header = json.loads((folder / "fit.json").read_text())
    (folder / "fit.json").write_text(json.dumps(header | {"engine": engine, "library": library}))
    sealed(folder)


def test_a_library_that_a_folder_names_is_never_loaded(folder, tmp_path, monkeypatch):
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("builds a library that leaves a mark: needs a C++ compiler")
    place, mark = tmp_path / "fit", tmp_path / "mark"
    monkeypatch.setenv("AVISTAN_TEST_MARK", str(mark))
    shutil.copytree(folder, place)
    library = tmp_path / "payload_model.so"
    (tmp_path / "payload.cpp").write_text(PAYLOAD)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, tmp_path / "payload.cpp"], check=True)
    monkeypatch.chdir(tmp_path)
    for engine in (str(library), "./payload_model.so", "payload_model.so", "library"):
        with_engine(place, engine, library=str(library))
        with pytest.raises(FitError):
            avi.load(place)
        command = [sys.executable, "-m", "avistan", "predict", str(place), "new.json", "--output", "new.nc"]
        (tmp_path / "new.json").write_text(json.dumps(NEW))
        done = (
            subprocess.run(command, capture_output=True, text=True, check=False)
            if engine == "library"
            else None
        )
        assert done is None or (done.returncode == 2 and "--engine path/to/" in done.stderr)
    assert not mark.exists()
    with pytest.raises(AvistanError, match="not a BridgeStan model library"):  # the guard is not the loader's
        avi.load(place, engine=str(library))
    assert mark.exists()


def test_a_fit_with_a_prebuilt_library_says_which_to_name_and_that_stanli_would_do(folder, tmp_path):
    place = tmp_path / "fit"
    shutil.copytree(folder, place)
    with_engine(place, "library", library="schools_model.so")
    with pytest.raises(FitError, match=r"can't choose which library .*schools_model\.so.*engine=\"auto\""):
        avi.load(place)
    assert np.allclose(told_of(avi.load(place, engine="auto")), told_of(avi.load(folder)))


def told_of(fit):
    return fit.unconstrained_draws(3)[0]


def test_the_engine_that_the_caller_names_wins(folder):
    assert avi.load(folder, engine="stanli").model.engine_choice == "stanli"
    with pytest.raises(AvistanError, match="there is no library"):
        avi.load(folder, engine="/nowhere/x_model.so")


def test_a_saved_program_includes_nothing(folder, tmp_path, monkeypatch):
    place = tmp_path / "fit"
    shutil.copytree(folder, place)
    (tmp_path / "beside.stan").write_text("// a comment\n")
    monkeypatch.chdir(tmp_path)
    source = (place / "program.stan").read_text()
    (place / "program.stan").write_text(f"#include beside.stan\n{source}")
    sealed(place)
    with pytest.raises(AvistanError, match="a saved program is complete and includes nothing"):
        avi.load(place)


class Marking:
    """A pickle of it makes a folder when it is read."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


def test_a_pickle_among_the_arrays_is_never_read(folder, tmp_path):
    place, mark = tmp_path / "fit", tmp_path / "mark"
    shutil.copytree(folder, place)
    arrays = dict(np.load(place / "arrays.npz")) | {"inputs": np.array([Marking(mark)], dtype=object)}
    np.savez(place / "arrays.npz", **arrays)
    sealed(place)
    with pytest.raises(FitError, match=r"arrays\.npz: inputs is no plain array"):
        avi.load(place)
    assert not mark.exists()
