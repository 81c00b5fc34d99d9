"""Write 100 draws of a million units to a store, and print the peak memory of this process in MiB as its last line.

    python large_posterior.py STORE

Nothing is trained at that size: a fit of 1000 units serves a million, whose data are bound to the same program.
"""

import resource
import sys
from dataclasses import replace
from pathlib import Path

import equinox as eqx
import jax
import numpy as np

from avistan.family.placement import make_placement
from programs import bundled


def simulated(units: int) -> dict:
    rng = np.random.default_rng(1)
    z = 1.5 + 1.155 * rng.standard_normal(units)
    return {"N": units, "x": z + 2.43 * rng.standard_normal(units), "tau": 1.155, "sigma": 2.43}


def of_more_units(units: int):
    """A fit of the linear program as if it had been trained on that many units."""
    small = bundled("linear", simulated(1000)).fit(
        method="avi:polynomial(1):data(x)", steps=200, elbo_draws=100
    )
    large = bundled("linear", simulated(units)).bound
    level = small.level
    rows = np.arange(1, large.dim)[:, None]  # theta comes first, then z
    with jax.enable_x64(True):
        placement = make_placement(np.arange(1), rows)
        chain = small.chains[0]
        family = eqx.tree_at(lambda f: f.placement, chain.family, placement)
    inputs = small.unit_input(large, rows, np.arange(1))
    return replace(
        small,
        model=large,
        level=replace(level, index=rows),
        chains=(replace(chain, family=family, inputs=inputs),),
    )


def peak_mib() -> float:
    status = Path("/proc/self/status")
    if status.exists():  # Linux's ru_maxrss begins at the peak of the process that started this one
        return float(status.read_text().partition("VmHWM:")[2].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    fit = of_more_units(1_000_000)
    print(f"{peak_mib():.0f} MiB when bound, and at the end")
    fit.write_posterior(sys.argv[1], 100, resample="none")
    print(f"{peak_mib():.0f}")
