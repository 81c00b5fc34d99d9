"""A whole process with one fit by the public API of whichever revision is installed.

    python benchmarks/_whole_fit.py METHOD PROGRAM.stan DATA.json ANSWER.json [SEED]

`against_commit.py` starts it and measures the process from outside. ANSWER.json gets what the fit says of itself and
the wall seconds of the fit's parts, which are for reading, not for comparing.
"""

import sys
import time


def main() -> None:
    method, program, data, answer, *seed = sys.argv[1:]
    began = time.perf_counter()
    import avistan as avi

    imported = time.perf_counter()
    model = avi.Model(program, data=data)
    bound = time.perf_counter()
    fit = model.fit(method=method, seed=int(seed[0]) if seed else 1)
    ended = time.perf_counter()
    import json

    timing = fit.timing
    seconds = {
        "imports": imported - began,
        "binding": bound - imported,
        "preparation": timing.prepare,
        "compile": timing.compile,
        "training": timing.train,
        "evaluation": timing.evaluate,
    }
    seconds["rest"] = ended - began - sum(seconds.values())
    with open(answer, "w") as file:
        json.dump(
            {
                "elbo": float(fit.elbo),
                "elbo_se": float(fit.elbo_se),
                "family": fit.method.name,
                "gradients": int(fit.gradient_evaluations),
                "seconds": seconds,
            },
            file,
        )


if __name__ == "__main__":
    main()
