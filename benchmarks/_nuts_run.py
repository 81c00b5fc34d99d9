"""stanli's NUTS on a program in a process of its own.

    python benchmarks/_nuts_run.py PROGRAM.stan DATA.json VARIABLES.json ANSWER.json SEED WARMUP DRAWS

VARIABLES.json lists labels such as `beta[2]`; null stands for all parameters that
are no unit's latents. ANSWER.json gets CPU seconds of the
sampling and of the process, and of every variable moments, quantiles, R-hat and effective draws.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

CHAINS = 4


def main() -> None:
    program, data, variables, answer_file, seed, warmup, draws = sys.argv[1:]
    warnings.simplefilter("ignore")
    began = time.perf_counter()
    from stan_adapters.bound.bound_model import BoundModel
    from stan_adapters.data.stan_data import read_data
    from stan_adapters.language.program import Program
    from stan_adapters.samplers.stanli import nuts

    parsed = Program.from_file(Path(program))
    model = BoundModel(parsed, read_data(parsed, Path(data)))
    before = os.times()
    sampled = nuts(model, seed=int(seed), chains=CHAINS, warmup=int(warmup), draws=int(draws))
    seconds = {
        "nuts": sum(os.times()[:4]) - sum(before[:4]),
        "cpu": sum(os.times()[:4]),
        "wall": time.perf_counter() - began,
    }
    labels = json.loads(Path(variables).read_text())
    flat = sampled.theta.reshape(-1, model.dim)
    values, _ = model.constrain(flat, transformed_parameters=labels is not None, generated_quantities=False)
    if labels is None:
        labels = labels_of_globals(model, values)
    answer = {
        "seconds": seconds,
        "divergences": sampled.divergences,
        "variables": {
            label: found for label in labels if (found := variable(label, values, int(draws))) is not None
        },
    }
    Path(answer_file).write_text(json.dumps(answer))


def labels_of_globals(model: Any, values: dict[str, Any]) -> list[str]:
    import numpy as np

    from stan_adapters.structure.structure import inspect_structure

    level = inspect_structure(model, seed=1).level
    latents = level.latents if level is not None else ()
    names = [name for name in values if name not in latents] or list(values)
    return [
        f"{name}[{','.join(str(i + 1) for i in place)}]" if place else name
        for name in names
        for place in np.ndindex(values[name].shape[1:])
    ]


def variable(label: str, values: dict[str, Any], draws: int) -> dict[str, Any] | None:
    """What is known of a variable; None where the program has no such parameter or transformed parameter."""
    import arviz_stats
    import numpy as np

    from _posteriors import Moments, component

    name, place = component(label)
    if name not in values:
        return None
    own = np.asarray(values[name], dtype=np.float64)[(slice(None), *place)].reshape(CHAINS, draws)
    axes = {"chain_axis": 0, "draw_axis": 1}
    return {
        "moments": asdict(Moments.of(own)),
        "quantiles": np.quantile(own, [0.05, 0.5, 0.95]).tolist(),
        "constant": bool(np.ptp(own) == 0),
        "rhat": float(arviz_stats.rhat(own, **axes)),
        "ess": float(arviz_stats.ess(own, **axes)),
    }


if __name__ == "__main__":
    main()
