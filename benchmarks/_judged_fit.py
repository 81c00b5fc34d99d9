"""A default fit, what it hands out and what it says of that, in a process of its own.

    python benchmarks/_judged_fit.py PROGRAM.stan DATA.json VARIABLES.json ANSWER.json SEED DRAWS

VARIABLES.json lists labels such as `beta[2]`, whose moments are those of DRAWS draws, or of the default ones where
these took long. ANSWER.json is written again after every part, so that a process that is stopped leaves what it had.
`gate_accuracy.py` starts it.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
LONG = 20.0  # CPU seconds of a posterior that is not made a second time with more draws


def main() -> None:
    program, data, variables, answer_file, seed, draws = sys.argv[1:]
    warnings.simplefilter("ignore")
    answer: dict[str, Any] = {"seconds": {}}

    def timed(part: str, work: Callable[[], T]) -> T:
        """What the work gives; its CPU seconds, those of processes that it starts among them, go into the answer."""
        before = os.times()
        made = work()
        answer["seconds"][part] = sum(os.times()[:4]) - sum(before[:4])
        answer["done"] = part
        place = Path(answer_file).with_suffix(".part")
        place.write_text(json.dumps(answer))
        place.replace(answer_file)
        return made

    labels = json.loads(Path(variables).read_text())
    model = timed("start", lambda: started(program, data))
    fit = timed("fit", lambda: model.fit(seed=int(seed)))
    answer["family"], answer["level"] = fit.method.name, fit.level.name if fit.level else None
    tree = timed("posterior", fit.posterior)
    answer["correction"] = str(tree.attrs.get("correction", ""))
    diagnosis = timed("diagnosis", fit.diagnose)
    answer["passed"] = bool(diagnosis.passed)
    answer["outcome"] = getattr(diagnosis.outcome, "name", str(diagnosis.outcome))
    if int(draws) != tree["posterior"].sizes["draw"] and answer["seconds"]["posterior"] < LONG:
        tree = timed("further draws", lambda: fit.posterior(int(draws)))
    answer |= moments(fit, tree["posterior"], labels)
    timed("moments", lambda: None)


def started(program: str, data: str) -> Any:
    import avistan

    return avistan.Model(program, data=data)


def moments(fit: Any, posterior: Any, labels: list[str]) -> dict[str, Any]:
    """Moments of the globals, by label, and the labels that the posterior does not have.

    A variable is a unit's where it has the level's dim; where all are, those count that are not derived from others.
    """
    import numpy as np

    from _posteriors import Moments, component

    level = fit.level
    parameters = {declaration.name for declaration in fit.model.program.parameters}
    there = {label: component(label) for label in labels}
    there = {label: (name, place) for label, (name, place) in there.items() if name in posterior}

    def of_units(name: str) -> bool:
        return level is not None and (name in level.latents or level.name in posterior[name].dims)

    chosen = [label for label, (name, _) in there.items() if not of_units(name)]
    if not chosen:
        chosen = [label for label, (name, _) in there.items() if name in parameters] or list(there)
    found = {}
    for label in chosen:
        name, place = there[label]
        values = np.asarray(posterior[name].transpose("chain", "draw", ...), dtype=np.float64)
        found[label] = asdict(Moments.of(values[(..., *place)]))
    return {"moments": found, "missing": [label for label in labels if label not in there]}


if __name__ == "__main__":
    main()
