"""What a killed process leaves is cleared away, what a running one holds is not; disks without room."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from avistan.files import outputs as places
from avistan.files.locks import held, holder, take
from avistan.report import write as files
from avistan.runtime.errors import FitError
from small_disk import small_disk
from stan_adapters.files.memory import in_bytes

KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = {path!r}
from avistan.files import outputs as places
names = ["a"]
{patch}
with places.{kind} as place:
    (place / "a" if place.is_dir() else place).write_text("new")
    {die}
"""
DIE = "os.kill(os.getpid(), signal.SIGKILL)"


def killed(kind, patch="", die=DIE):
    code = KILLED.format(path=sys.path, kind=kind, patch=patch, die=die)
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_killed_write_is_cleared_by_the_next_one(tmp_path):
    killed(f"whole_folder({str(tmp_path / 'fit')!r}, names)")
    killed(f"whole_file({str(tmp_path / 'new.nc')!r})")
    assert len(names(tmp_path)) == 2  # so there was something to clear
    places.check_folder_place(tmp_path / "fit", ["a"])
    with places.whole_file(tmp_path / "new.nc") as file:
        file.write_text("whole")
    assert names(tmp_path) == ["new.nc"]


def test_a_killed_write_into_a_folder_of_ours_does_not_count_as_another_file(tmp_path):
    (tmp_path / "fit").mkdir()
    killed(f"whole_file({str(tmp_path / 'fit' / 'a')!r})")
    assert names(tmp_path / "fit")
    places.check_folder_place(tmp_path / "fit", ["a"])
    assert names(tmp_path / "fit") == []


def test_a_process_killed_between_two_renames_loses_neither_folder(tmp_path):
    place = tmp_path / "fit"
    place.mkdir()
    (place / "a").write_text("old")
    patch = (
        "rename = Path.rename\n"
        "def once(path, to):\n"
        "    rename(path, to)\n"
        f"    if path == Path({str(place)!r}): {DIE}\n"
        "Path.rename = once\n"
    )
    killed(f"whole_folder({str(place)!r}, names)", patch, die="pass")
    assert not place.exists()
    places.clear_leftovers(place)
    assert (place / "a").read_text() == "new"
    assert names(tmp_path) == ["fit"]


def test_folders_made_for_a_file_that_is_not_written_are_gone(tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(InterruptedError), places.whole_file(tmp_path / "there" / "gone" / "deep" / "x.png"):
        raise InterruptedError
    assert names(tmp_path / "there") == []
    with places.whole_file(tmp_path / "there" / "kept" / "x.png") as file:
        file.write_text("x")
    assert names(tmp_path / "there") == ["kept"]


def test_what_a_running_process_writes_is_left_alone(tmp_path):
    with places.whole_file(tmp_path / "new.nc") as one:
        one.write_text("first")
        with places.whole_file(tmp_path / "new.nc") as two:
            two.write_text("second")
        assert (tmp_path / "new.nc").read_text() == "second"
    assert (tmp_path / "new.nc").read_text() == "first"
    assert names(tmp_path) == ["new.nc"]


def test_hidden_files_of_others_stay(tmp_path):
    other = tmp_path / ".fit-notebook"
    other.mkdir()
    (other / "mine").write_text("keep")
    (tmp_path / ".fit-12345678").write_text("a file")
    places.clear_leftovers(tmp_path / "fit")
    assert names(tmp_path) == [".fit-12345678", ".fit-notebook"]


def test_a_lock_says_who_holds_it_and_ends_with_its_block(tmp_path):
    path = tmp_path / "lock"
    for share in (False, True):
        with held(path, share=share) as mine:
            assert mine
            assert take(path) is None
            assert f"process {os.getpid()} " in holder(path)
            with held(path) as again:
                assert again is share
            assert path.exists()
        assert not path.exists()
    file = take(path)
    with file, held(path) as mine:
        assert not mine


@pytest.mark.parametrize("kibibytes", [4, 40, 200, 400, 600])
def test_netcdf_on_a_disk_without_room_is_one_error_that_leaves_nothing(kibibytes, tmp_path, monkeypatch):
    values = np.random.default_rng(0).normal(size=(1, 1000, 80))  # 640 kB that do not compress
    tree = xr.DataTree.from_dict({"/posterior": xr.Dataset({"a": (("chain", "draw", "n"), values)})})
    with small_disk(tmp_path / "disk", kibibytes) as disk:
        with pytest.raises(FitError, match=r"x\.nc takes .* free: make room"):
            files.write_netcdf(tree, disk / "x.nc")
        assert names(disk) == []
        monkeypatch.setattr(files, "check_room", lambda *_: None)  # another process takes the room meanwhile
        with pytest.raises(FitError, match=r"No space left on device\. Make room"):
            files.write_netcdf(tree, disk / "x.nc")
        assert names(disk) == []


@pytest.mark.parametrize(
    ("number", "text"),
    [(1, "1 byte"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (10**6, "977 KiB"), (2**20, "1.0 MiB")],
)
def test_sizes_are_told_in_binary_units(number, text):
    assert in_bytes(number) == text


def test_a_place_is_told_by_its_own_name_where_the_disk_is_full(tmp_path):
    with (
        pytest.raises(FitError, match=r"can't write .*/fit: No space"),
        places.whole_folder(tmp_path / "fit", []),
    ):
        raise OSError(28, "No space left on device", str(Path("elsewhere")))
