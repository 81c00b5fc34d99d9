#!/usr/bin/env bash
# stanli 0.24.0: ordered_probit of several outcomes at one location counts the first outcome only.
#
# Stan's functions reference has `ordered_probit_lpmf(ints k | real eta, vectors c)`: the sum over all outcomes. stanli
# gives that of the first, in the model and everywhere else, and its gradient; no message. With a location for each
# outcome, `rep_vector(eta, size(k))`, the sum is right. Checked against the normal distribution function in Python.
#
# Seen: log mass of k = {2, 3, 1} at eta = -0.4 with cuts -1.1, 0.3, 1.2: -0.6615, that of k = {2}; -3.7562 is right.
# Needs python3 (3.10 or newer) with venv, and pip's package index. Exits with 1 if the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check stanli==0.24.0 bridgestan==2.9.0 numpy==2.2.6
cd "$folder"
"$folder/venv/bin/python" - <<'EOF'
import math

import numpy as np
import stanli

PROGRAM = """
data {{ array[3] int k; vector[3] c; }}
parameters {{ real eta; }}
model {{ target += ordered_probit_lpmf(k | {location}, c); }}
"""
K, CUTS, ETA = [2, 3, 1], [-1.1, 0.3, 1.2], -0.4


def log_mass(k: int) -> float:
    edges = [-math.inf, *CUTS, math.inf]
    phi = [0.5 * math.erfc((ETA - edge) / math.sqrt(2)) for edge in edges]
    return math.log(phi[k] - phi[k - 1])


def stanli_gives(location: str) -> float:
    mir = stanli.stan_to_mir(PROGRAM.format(location=location))
    return float(stanli.bridgestan_model(mir=mir, data={"k": K, "c": CUTS}).log_density_gradient(np.array([ETA]))[0])


all_three, first = sum(map(log_mass, K)), log_mass(K[0])
one, many = stanli_gives("eta"), stanli_gives("rep_vector(eta, 3)")
print(
    f"stanli {stanli.__version__}: should be {all_three:.10f}; with one location {one:.10f} (the first outcome alone: "
    f"{first:.10f}), with a location for each {many:.10f}"
)
raise SystemExit(not (math.isclose(one, first, rel_tol=1e-9) and math.isclose(many, all_three, rel_tol=1e-9)))
EOF
