"""Programs of steps: one for each family, kept for the next process, and for other data of the same program."""

import json
import os
import subprocess
import sys

import pytest

from avistan.training.steps import padded_size

FIT = """
import json, sys
import avistan as avi
import jax.monitoring
import numpy as np

seed, seen = int(sys.argv[1]), []
jax.monitoring.register_event_listener(lambda event, **_: seen.append(event))
x = np.random.default_rng(seed).normal(size=20)
data = {"N": 20, "x": x, "tau": 1.0, "sigma": 1.0}
model = avi.Model(avi.models_root() / "linear" / "linear.stan", data=data)
counts = []
for method in ("avi:mlp(4)", "fvi"):
    seen.clear()
    model.fit(method=method, seed=seed, steps=20, elbo_draws=20)
    counts.append(seen.count("/jax/compilation_cache/cache_misses"))
from avistan.training.steps import _compiled
print(json.dumps({"misses": counts, "programs": len(_compiled)}))
"""


def test_a_family_takes_one_program_and_a_warm_process_none(tmp_path):
    """Of other data and another seed."""
    own = {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "AVISTAN_CACHE_DIR": str(tmp_path),
    }
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")} | own
    found = []
    for seed in (1, 2):
        done = subprocess.run(
            [sys.executable, "-c", FIT, str(seed)],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout))
    assert [run["programs"] for run in found] == [2, 2]
    assert min(found[0]["misses"]) > 0  # what compiles is seen
    assert found[1]["misses"] == [0, 0]


@pytest.mark.parametrize("units", [1, 2, 3, 5, 9, 100, 1000, 1025, 2047])
def test_few_numbers_of_units_are_compiled_for_and_none_is_much_larger(units):
    size = padded_size(units)
    assert units <= size <= 1.25 * units
    assert padded_size(size) == size
    assert len({padded_size(n) for n in range(units, 2 * units)}) <= 5


def test_very_many_units_are_as_many_as_they_are():
    assert padded_size(100_003) == 100_003
