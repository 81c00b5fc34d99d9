"""Programs and data of posteriordb, laid out for `gate_accuracy.py` and `time_to_posterior.py`.

    git clone --bare https://github.com/stan-dev/posteriordb
    python benchmarks/posteriordb_bank.py posteriordb.git BANK [--references FILE] [--only NAME,...]

CLONE is a clone, bare or with files. BANK gets a folder NAME with NAME.stan and NAME.json for every posterior that is
asked for: those of FILE, those named, or all. posteriordb's licence, and those of the data it collects, are its own;
nothing of it is part of this repository.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

from _posteriors import read_references

ROOT = "posterior_database"


def main() -> None:
    arguments = parse_arguments()
    names = arguments.only.split(",") if arguments.only else known(arguments.clone)
    if arguments.references:
        wanted = read_references(arguments.references)
        names = [name for name in names if name in wanted]
    for name in names:
        try:
            lay_out(arguments.clone, name, arguments.bank)
        except LookupError as error:
            sys.exit(f"{name}: {error}")
    print(f"{len(names)} posteriors in {arguments.bank}")


def known(clone: Path) -> list[str]:
    """Names of all posteriors of a clone."""
    listed = git(clone, "ls-tree", "--name-only", f"HEAD:{ROOT}/posteriors").decode().split()
    return [name.removesuffix(".json") for name in listed if name.endswith(".json")]


def lay_out(clone: Path, name: str, bank: Path) -> None:
    """Writes NAME/NAME.stan and NAME/NAME.json.

    Raises:
        LookupError: the clone has no such posterior, or a part of it is missing.
    """
    posterior = json.loads(shown(clone, f"posteriors/{name}.json"))
    program = shown(clone, f"models/stan/{posterior['model_name']}.stan")
    zipped = shown(clone, f"data/data/{posterior['data_name']}.json.zip")
    with zipfile.ZipFile(io.BytesIO(zipped)) as archive:
        data = archive.read(archive.namelist()[0])
    folder = bank / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.stan").write_bytes(program)
    (folder / f"{name}.json").write_bytes(data)


def shown(clone: Path, path: str) -> bytes:
    """A file of the newest commit."""
    return git(clone, "show", f"HEAD:{ROOT}/{path}")


def git(clone: Path, *arguments: str) -> bytes:
    done = subprocess.run(["git", "-C", str(clone), *arguments], capture_output=True, check=False)
    if done.returncode:
        raise LookupError(f"{clone} does not give it: {done.stderr.decode().strip()}")
    return done.stdout


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clone", type=Path)
    parser.add_argument("bank", type=Path)
    parser.add_argument("--references", type=Path, help="only the posteriors of this file of references")
    parser.add_argument("--only", help="names of posteriors, separated by commas")
    return parser.parse_args()


if __name__ == "__main__":
    main()
