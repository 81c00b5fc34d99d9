"""The main job on real data, as `make demo` runs it: `python -m avistan.cli.demo`.

Five answers each of 1000 persons, an item response model in Stan, and the ability of every person as a latent.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from avistan.cli.examples import models_root
from avistan.files.outputs import check_folder_place, whole_folder
from avistan.model import Model
from avistan.report.write import PAGE, PICTURES, REPORT, best_row, write_netcdf, write_report
from avistan.runtime.errors import AvistanError

OUTPUT = Path("demo-output")
NEW_PERSONS = "new_persons.nc"


def run(
    output: Path = OUTPUT, *, seed: int = 1, reference_options: dict[str, Any] | None = None, **options: Any
) -> None:
    """Inspect, compare, predict; print what happens and write the results to a folder.

    Args:
        reference_options, options: as in `Model.compare`; the defaults are the demonstration.
    """
    started = time.perf_counter()
    folder = models_root() / "lsat_2pl"
    contents = (*REPORT, NEW_PERSONS)
    check_folder_place(output, contents)
    _say(
        "A Stan program and its data, unchanged: the answers of 1000 persons to five items of the Law School\n"
        "Admission Test. Every person has an ability theta, every item a discrimination a and an easiness b.\n"
        f"  program  {folder / 'lsat_2pl.stan'}\n"
        f"  data     {folder / 'data.json'}"
    )
    model = Model(folder / "lsat_2pl.stan", data=folder / "data.json")

    _step("1. Which latents could a function predict from a unit's data, and would that lose anything?")
    _say(str(model.inspect(seed=seed)))

    _step(
        "2. The posterior that avistan hands out, and three plain approximations, measured against NUTS.\n"
        "   auto: the default fit, with its posterior corrected; avi: one learned function gives every person's\n"
        "   factor; fvi: a free factor for each person; constant: one factor for all.\n"
        "   (NUTS comes first and takes up to half a minute.)"
    )
    comparison = model.compare(
        ("auto", "avi", "fvi", "constant"),
        reference="nuts",
        seed=seed,
        reference_options=reference_options,
        **options,
    )
    _say(str(comparison))

    _step("3. New persons: their abilities from their answers alone, with nothing trained.")
    fit = best_row(comparison).fit
    assert fit is not None
    new = fit.predict(folder / "new_persons.json")
    _say(_abilities(new))

    with whole_folder(output, contents) as place:
        write_report(comparison, place)
        write_netcdf(new, place / NEW_PERSONS)
    _step(
        f"Written to {output}{'/' if output.name else ''} after {time.perf_counter() - started:.0f} seconds:"
    )
    _say(
        f"  {PAGE}        everything above with pictures, to open in a browser\n"
        "  comparison.json    its numbers\n"
        f"  posterior.nc       1000 draws of the {fit.method.name} fit; read it with arviz.from_netcdf\n"
        f"  {NEW_PERSONS}     the same for the new persons\n"
        f"  {PICTURES[0]}, {PICTURES[1]}, {PICTURES[2]}: the report's pictures, for slides"
    )


def _abilities(new: xr.DataTree) -> str:
    theta = new["predictions"]["theta"].stack(sample=("chain", "draw")).transpose("sample", ...).to_numpy()
    lines = [f"{'answers':<10}{'ability':>9}{'sd':>7}{'90 % interval':>20}"]
    for person, answers in enumerate(new["observed_data"]["y"].to_numpy()):
        low, high = np.quantile(theta[:, person], (0.05, 0.95))
        pattern = "".join(str(int(answer)) for answer in answers)
        mean, sd = theta[:, person].mean(), theta[:, person].std(ddof=1)
        lines.append(f"{pattern:<10}{mean:>9.2f}{sd:>7.2f}{f'{low:.2f} to {high:.2f}':>20}")
    return "\n".join(lines)


def _step(title: str) -> None:
    _say(f"\n{title}\n")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> None:
    """Entry point of `python -m avistan.cli.demo`: an error is a message and exit status 2."""
    try:
        run()
    except AvistanError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
