"""Draws as CmdStan's CSV files, a file for each chain, which cmdstanpy, rstan, cmdstanr and posterior read.

The files say that the algorithm is `fixed_param`, because there are no transitions of HMC to be told of: no step size,
no divergences; the warm-up that they name is CmdStan's default, which `fixed_param` skips. Settings are written as by
CmdStan 2.34, whose words old and new readers know: rstan 2.21 can't read `save_warmup = false`, which CmdStan writes
since. Numbers have as many digits as bring the same double back.
"""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import IO

import numpy as np
import orjson

from avistan.export.columns import csv_names, flat, told
from avistan.export.parts import Outgoing
from avistan.files.outputs import check_room, whole_folder
from avistan.runtime.errors import FitError
from avistan.runtime.progress import begin_stage
from avistan.runtime.types import FloatArray, StrPath
from avistan.runtime.versions import __version__

BYTES_OF_A_NUMBER = 19  # in text
_STATISTICS = ("lp__", "accept_stat__")
_HEAD = """\
# stan_version_major = 2
# stan_version_minor = 34
# stan_version_patch = 0
# model = {model}
# method = sample (Default)
#   sample
#     num_samples = {draws}
#     num_warmup = 1000 (Default)
#     save_warmup = 0 (Default)
#     thin = 1 (Default)
#     algorithm = fixed_param
#     num_chains = 1 (Default)
# id = {chain}
# random
#   seed = {seed}
# output
#   file = {file}
# written_by = avistan {version} (in the format of CmdStan 2.34)
"""
_TAIL = """\
#
#  Elapsed Time: 0 seconds (Warm-up)
#                0 seconds (Sampling)
#                0 seconds (Total)
#
"""


def write_cmdstan(drawn: Outgoing, folder: StrPath) -> list[Path]:
    """Write all draws to a folder, which appears when it is complete.

    Returns: the files.

    Raises:
        FitError: the folder holds other files, can't be written, or its disk has no room.
    """
    names = [f"{drawn.program}_{chain + 1}.csv" for chain in range(drawn.chains)]
    begin_stage(f"writing {folder}")
    with whole_folder(folder, names) as new:
        needed = BYTES_OF_A_NUMBER * drawn.numbers * drawn.each * drawn.chains
        check_room(new, needed, str(folder))
        with contextlib.ExitStack() as stack:
            files: dict[int, IO[bytes]] = {}
            for part in drawn.parts:
                if part.chain not in files:
                    files[part.chain] = stack.enter_context((new / names[part.chain]).open("wb"))
                    files[part.chain].write(_head(drawn, part.chain, names[part.chain]))
                statistics = np.column_stack([part.lp, np.ones(len(part.lp))])
                for row in np.concatenate([statistics, flat(drawn, part)], axis=1):
                    files[part.chain].write(_line(row))
            for file in files.values():
                file.write(_TAIL.encode())
        if len(files) < drawn.chains:
            raise FitError(f"there are draws of {len(files)} of {drawn.chains} chains only.")
    return [Path(folder) / name for name in names]


def _head(drawn: Outgoing, chain: int, file: str) -> bytes:
    head = _HEAD.format(
        model=f"{drawn.program}_model",
        draws=drawn.each,
        chain=chain + 1,
        seed=drawn.attrs.get("seed", 0),
        file=file,
        version=__version__,
    )
    notes = "".join(f"# avistan_{name} = {text}\n" for name, text in told(drawn.attrs).items())
    return (head + notes + ",".join([*_STATISTICS, *csv_names(drawn)]) + "\n").encode()


def _line(row: FloatArray) -> bytes:
    if np.isfinite(row).all():
        return orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1] + b"\n"
    return ",".join(_as_cmdstan(value) for value in row.tolist()).encode() + b"\n"


def _as_cmdstan(value: float) -> str:
    if math.isfinite(value):
        return repr(value)
    return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
