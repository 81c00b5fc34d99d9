#!/usr/bin/env bash
# stanli 0.24.0: a `return` inside a `while` loop of a user's function is lost in the model block.
#
# f(7) doubles q from 1 until it is above 7 and returns it: 8. In transformed data stanli computes 8; in the model (and
# in transformed parameters and generated quantities) the loop is left, the value is dropped, and the statement after the
# loop gives the result: -1. There is no message. With `break` in the loop and one `return` after it the result is right.
#
# Seen: transformed data 8, model -1, model with break 8.
# Needs python3 (3.10 or newer) with venv, and pip's package index. Exits with 1 if the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check stanli==0.24.0 bridgestan==2.9.0 numpy==2.2.6
cd "$folder"
"$folder/venv/bin/python" - <<'EOF'
import numpy as np
import stanli

FUNCTIONS = """
functions {
  int f(int n) { int q = 1; while (q < 100) { q *= 2; if (q > n) return q; } return -1; }
  int g(int n) { int q = 1; while (q < 100) { q *= 2; if (q > n) break; } return q; }
}
"""
PROGRAMS = {
    "transformed data": "transformed data { int s = f(7); } parameters { real x; } model { target += s * x; }",
    "model": "parameters { real x; } model { target += f(7) * x; }",
    "model with break": "parameters { real x; } model { target += g(7) * x; }",
}
seen = {}
for place, program in PROGRAMS.items():
    model = stanli.bridgestan_model(mir=stanli.stan_to_mir(FUNCTIONS + program), data="{}")
    seen[place] = float(model.log_density_gradient(np.zeros(1))[1][0])
print(f"stanli {stanli.__version__}: f(7) should be 8; " + ", ".join(f"{place} {value:g}" for place, value in seen.items()))
raise SystemExit(seen != {"transformed data": 8.0, "model": -1.0, "model with break": 8.0})
EOF
