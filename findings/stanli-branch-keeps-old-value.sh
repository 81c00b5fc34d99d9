#!/usr/bin/env bash
# stanli 0.24.0: after a branch whose condition depends on a parameter, a condition or an index sees the old value.
#
# In the model block, `real v = 3; if (y > 1) v = -5; if (v <= 2) r = 2;` with y = 2.5 should take both branches. The
# first assignment counts where v enters the density, but a later condition or index is evaluated with the
# value from before the branch: no message, a wrong density and gradient. The same holds for entries of arrays and
# after `break` in a loop.
#
# Seen: gradients of r by four programs: 0 0 4 0; by Stan's language they are 2 2 7 1.
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

BODIES = {
    "a condition": "real v = 3; if (y > 1) v = -5; if (v <= 2) r = 2;",
    "an entry": "array[2] real v = {1, 1}; if (y > 1) v[1] = 3; if (v[1] > 2) r = 2;",
    "an index": "array[1] int v = {1}; array[2] real w = {4, 7}; if (y > 1) v[1] = 2; r = w[v[1]];",
    "a loop that is left": "real v = 1; for (i in 1:3) { if (y < i) break; v = i; } if (v > 1.5) r = 1;",
}
seen = []
for name, body in BODIES.items():
    code = f"parameters {{ real x; real y; }} model {{ real r = 0; {body} target += r * x; }}"
    model = stanli.bridgestan_model(mir=stanli.stan_to_mir(code), data={})
    seen.append(float(model.log_density_gradient(np.array([0.0, 2.5]))[1][0]))
    print(f"stanli {stanli.__version__}, {name}: {seen[-1]:g}")
raise SystemExit(seen != [0, 0, 4, 0])
EOF
