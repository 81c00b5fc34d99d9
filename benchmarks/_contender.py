"""One contender on one problem, in its own process, with the seconds since that process began.

    python benchmarks/_contender.py CONTENDER STAN_FILE DATA.json FOLDER STARTED

`time_to_answer.py` starts it. STARTED is the time (seconds since 1970) at which the process was asked for; FOLDER gets
`answer.json` and, of a mean-field Gaussian on Stan's unconstrained scale, snapshots along the way in `snapshots.npz`.
"""

from __future__ import annotations

import functools
import sys
import time
from pathlib import Path
from typing import Any

SVI_RATE, SVI_HALVING = 0.02, 2000  # Adam's rate at first, and the steps in which it halves
SVI_CHUNK, SVI_MOST = 500, 20_000  # steps between two looks, and at most
SVI_SECONDS = 120.0  # of CPU


def main() -> None:
    contender, stan_file, data_file, folder, started = sys.argv[1:]
    began = float(started)
    run = {
        "numpyro": numpyro_svi,
        "nuts": nuts,
        "pathfinder": pathfinder,
        "cmdstan-advi": advi,
        **{
            f"cmdstan-advi-{iterations}": functools.partial(advi, iterations=iterations)
            for iterations in (10_000, 100_000)
        },
    }.get(contender)
    place = Path(folder)
    if run is None:
        answer = avistan_fit(contender, stan_file, data_file, place, began)
    else:
        answer = run(stan_file, data_file, place, began)
    import json

    (place / "answer.json").write_text(json.dumps(answer))


def avistan_fit(method: str, stan_file: str, data_file: str, place: Path, began: float) -> dict[str, Any]:
    import avistan as avi

    model_class = avi.Model
    imported = time.time()
    model = model_class(stan_file, data=data_file)
    bound = time.time()
    fit = model.fit(method=method, seed=1)
    ended = time.time()
    timing = fit.timing
    import numpy as np

    np.save(place / "log_weights.npy", fit.evaluation.log_weights)
    fitting = timing.compile + timing.train + timing.evaluate + timing.prepare
    return {
        "seconds": ended - began,
        "cpu": time.process_time(),
        "split": {
            "imports": imported - began,
            "binding": bound - imported,
            "preparation": timing.prepare,
            "compile": timing.compile,
            "training": timing.train,
            "evaluation": timing.evaluate,
            "rest": ended - bound - fitting,  # the check of structure, what lies between the stages
        },
        "elbo": fit.elbo,
        "gradients": fit.gradient_evaluations,
        "family": fit.method.name,
    }


def numpyro_svi(stan_file: str, data_file: str, place: Path, began: float) -> dict[str, Any]:
    """SVI with AutoNormal, one draw a step: compiled chunks of steps, and the guide after each."""
    import json

    import jax
    import numpy as np
    import numpyro
    from numpyro.infer import SVI, Trace_ELBO
    from numpyro.infer.autoguide import AutoNormal

    from _numpyro_models import MODELS

    data = {
        name: np.asarray(value) if isinstance(value, list) else value
        for name, value in json.loads(Path(data_file).read_text()).items()
    }
    model = MODELS[Path(stan_file).stem]
    imported = time.time()
    guide = AutoNormal(model)
    adam = numpyro.optim.Adam(lambda step: SVI_RATE * 0.5 ** (step / SVI_HALVING))
    svi = SVI(model, guide, adam, Trace_ELBO())
    state = svi.init(jax.random.key(1), data)

    @jax.jit
    def chunk(state: Any) -> Any:
        return jax.lax.scan(lambda s, _: (svi.update(s, data)[0], None), state, None, length=SVI_CHUNK)[0]

    compiled = chunk.lower(state).compile()
    ready = time.time()
    seconds, cpu, snapshots = [], [], []
    for _ in range(SVI_MOST // SVI_CHUNK):
        state = compiled(state)
        found = jax.device_get(svi.get_params(state))
        seconds.append(time.time() - began)
        cpu.append(time.process_time())
        snapshots.append(found)
        if cpu[-1] > SVI_SECONDS:
            break
    names = sorted(name.removesuffix("_auto_loc") for name in snapshots[0] if name.endswith("_auto_loc"))
    arrays = {
        f"{part}.{name}": np.array([found[f"{name}_auto_{part}"] for found in snapshots])
        for name in names
        for part in ("loc", "scale")
    }
    np.savez(place / "snapshots.npz", seconds=np.array(seconds), cpu=np.array(cpu), **arrays)
    split = {"imports": imported - began, "compile": ready - imported}
    return {"seconds": seconds[-1], "split": split, "steps": SVI_CHUNK}


def nuts(stan_file: str, data_file: str, place: Path, began: float) -> dict[str, Any]:
    from avistan.comparison.references import nuts as sample

    found = sample(_bound(stan_file, data_file), seed=1)
    seconds = time.time() - began
    return {"seconds": seconds, "remark": f"max R-hat {found.max_rhat:.3f}, least ESS {found.min_ess:.0f}"}


def pathfinder(stan_file: str, data_file: str, place: Path, began: float) -> dict[str, Any]:
    from stan_adapters.samplers.stanli import pathfinder_paths

    paths = pathfinder_paths(_bound(stan_file, data_file), seed=1)
    return {"seconds": time.time() - began, "remark": f"{len(paths.theta)} paths"}


def advi(
    stan_file: str, data_file: str, place: Path, began: float, *, iterations: int | None = None
) -> dict[str, Any]:
    import os

    import cmdstanpy  # noqa: F401  its import belongs to CmdStan's seconds
    import numpy as np

    from avistan.comparison.competitors import External

    imported = time.time()
    model = _bound(stan_file, data_file)
    with External(model, cmdstan_exe=os.environ.get("CMDSTAN_EXE")) as external:
        found = external.approximate("cmdstan-advi", seed=1, iterations=iterations)
    seconds = imported - began + found.seconds  # without compilation and the comparison with the model
    if found.mean_field is not None:
        np.savez(
            place / "moments.npz",
            seconds=np.array([seconds]),
            mean=found.mean_field[0],
            sd=found.mean_field[1],
        )
    ascent = 0.0 if found.trace is None else float(found.trace.seconds[-1])
    answer = {
        "seconds": seconds,
        "split": {"imports": imported - began, "run": found.seconds, "of that ascent": ascent},
        "remark": " ".join(filter(None, [f"{found.gradient_evaluations} gradients", found.caveat])),
    }
    return answer if found.elbo is None else answer | {"elbo": found.elbo, "elbo_se": found.elbo_se}


def _bound(stan_file: str, data_file: str) -> Any:
    from stan_adapters.bound.bound_model import BoundModel
    from stan_adapters.data.stan_data import read_data
    from stan_adapters.language.program import Program

    program = Program.from_file(stan_file)
    return BoundModel(program, read_data(program, data_file))


if __name__ == "__main__":
    main()
