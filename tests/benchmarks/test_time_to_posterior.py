import math

import numpy as np
import pytest
import xarray as xr

from time_to_posterior import MOST, Run, effective_draws, judged, longer


def run(cpu, **changes):
    return Run(**{"cpu": cpu, "wall": cpu, "ess": 500.0} | changes)


@pytest.mark.parametrize(
    ("own", "nuts", "units", "ok"),
    [
        (run(4.9), run(0.5), None, True),  # 5 s are always granted
        (run(6.0), run(0.5), None, False),
        (run(14.0), run(10.0), 1000, True),
        (run(16.0), run(10.0), 1000, False),
        (run(10.0), run(101.0), 10_000, True),
        (run(10.0), run(99.0), 10_000, False),
        (run(10.0), run(490.0, stopped=True), 100_000, False),
        (run(10.0), run(501.0, stopped=True), 100_000, True),
        (run(1.0, ess=300.0), run(10.0), None, False),
        (run(1.0, ess=math.nan), run(10.0), None, False),
        (run(1.0, stopped=True), run(10.0), None, False),
    ],
)
def test_a_bar_depends_on_the_units_and_the_draws_are_enough(own, nuts, units, ok):
    assert judged(own, nuts, units)[0] is ok


def test_a_stopped_sampler_gives_a_lower_bound():
    text = judged(run(10.0), run(900.0, stopped=True), 10_000)[1]
    assert text == "NUTS/avistan: CPU >= 90.00, wall >= 90.00 (at least 10: yes)"


def test_effective_draws_are_those_of_the_worst_global(tmp_path):
    rng = np.random.default_rng(1)
    copies = rng.choice(rng.normal(size=100), (1, 1000))
    values = {
        "mu": (("chain", "draw"), rng.normal(size=(1, 1000))),
        "b": (("chain", "draw", "k"), np.stack([copies, rng.normal(size=(1, 1000))], axis=-1)),
        "theta": (("chain", "draw", "N"), np.zeros((1, 1000, 200))),
    }
    xr.DataTree.from_dict({"posterior": xr.Dataset(values)}).to_netcdf(
        tmp_path / "posterior.nc", engine="h5netcdf"
    )
    assert effective_draws(tmp_path, None) == pytest.approx(100, rel=0.15)
    assert effective_draws(tmp_path, ["b[1]"]) == pytest.approx(100, rel=0.15)
    assert effective_draws(tmp_path, ["mu", "b[2]"]) > 600
    assert math.isnan(effective_draws(tmp_path / "nothing", None))


def test_chains_get_as_long_as_their_effective_draws_say():
    assert longer(100, 240.0) == 200
    assert longer(100, 390.0) == 150
    assert longer(100, 4.0) == longer(100, math.nan) == 800
    assert longer(MOST, 300.0) == MOST
