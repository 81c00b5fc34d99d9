"""Quick fits from other starts: modes that are apart, and starts that are only rough."""

import numpy as np

from avistan.diagnosis.restarts import probe_starts
from programs import bind

RIDGE = """
parameters { vector[3] x; }
model { x[1] ~ std_normal(); x[2] ~ normal(x[1], 0.03); x[3] ~ normal(x[2], 0.03); }
"""


def test_rough_starts_on_a_ridge_are_no_modes():
    with bind(RIDGE, {}) as model:
        probes = probe_starts(model, None, np.zeros(3), seed=1, count=6)
    assert len(probes) == 6
    assert max(probe.distance for probe in probes) > 1  # quick fits do not agree
    assert not any(probe.is_apart for probe in probes)
