#!/usr/bin/env bash
# Stan's compiler, as stanli 0.24.0 carries it: `for (x in m)` over a matrix goes row by row.
#
# The reference manual ("Foreach loops") says that elements of a matrix are visited in column-major order. The compiler
# turns the loop into an outer loop over rows(m) and an inner one over m[i], so that m[1,1], m[1,2], m[2,1], ... come in
# turn: a recursion over the entries gives another number than the manual promises, in every block.
#
# Seen: digits of [[1, 2, 3], [4, 5, 6]] in the order of the loop: 123456; column by column it would be 142536.
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

LOOP = "real s = 0; for (entry in m) s = 10 * s + entry;"
DATA = "data { matrix[2, 3] m; } "
PROGRAMS = {
    "transformed data": DATA
    + "transformed data { real t; { " + LOOP + " t = s; } } parameters { real x; } model { target += t * x; }",
    "model": DATA + "parameters { real x; } model { " + LOOP + " target += s * x; }",
}
seen = {}
for place, program in PROGRAMS.items():
    model = stanli.bridgestan_model(mir=stanli.stan_to_mir(program), data={"m": [[1, 2, 3], [4, 5, 6]]})
    seen[place] = float(model.log_density_gradient(np.zeros(1))[1][0])
print(
    f"stanli {stanli.__version__}: column by column would be 142536; "
    + ", ".join(f"{place} {value:.0f}" for place, value in seen.items())
)
raise SystemExit(set(seen.values()) != {123456.0})
EOF
