"""What stands between a new process and its first step: few packages to load, few programs to compile."""

import json
import os
import subprocess
import sys

HEAVY = ("arviz_base", "arviz_stats", "matplotlib", "orbax", "pandas", "scipy", "xarray", "zarr")
PROGRAMS = 3  # the chunk of steps, its learning rates, the ELBO
OF_ALL = 5  # what derives random streams, and the normals of the ELBO's draws: once a process
OF_THE_NETWORK = 3  # what brings it near its start
FIT = """
import json, sys
import avistan as avi

made = avi.Model
loaded = sorted(name for name in sys.argv[1:] if name in sys.modules)
import jax.monitoring
import numpy as np
from avistan.cli.examples import models_root

seen = []
jax.monitoring.register_event_duration_secs_listener(lambda event, seconds, **_: seen.append(event))
data = {"N": 20, "x": np.random.default_rng(1).normal(size=20), "tau": 1.0, "sigma": 1.0}
model = made(models_root() / "linear" / "linear.stan", data=data)
counts = {}
for method in ("constant", "avi:mlp(4)", "fvi", "fvi:conditional(mean+scale):flow"):
    seen.clear()
    model.fit(method=method, steps=20, elbo_draws=20)
    counts[method] = seen.count("/jax/core/compile/backend_compile_duration")
print(json.dumps({"loaded": loaded, "counts": counts}))
"""


def test_a_fit_loads_no_heavy_package_and_compiles_few_programs():
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", FIT, *HEAVY], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["loaded"] == []
    assert 1 <= found["counts"]["constant"] <= PROGRAMS + OF_ALL  # what compiles is seen
    assert found["counts"]["avi:mlp(4)"] <= PROGRAMS + OF_THE_NETWORK
    assert found["counts"]["fvi"] <= PROGRAMS
    assert found["counts"]["fvi:conditional(mean+scale):flow"] <= PROGRAMS
