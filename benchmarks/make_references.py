"""References of a bank's posteriors by long runs of stanli's NUTS, in the form that `gate_accuracy.py` reads.

    python benchmarks/make_references.py DIR --output FILE [--only NAME,...] [--limit SECONDS]

Every parameter that is no unit's latent gets its mean, sd and quantiles. Chains (4) are made longer until every one of
these has 1000 effective draws and an R-hat below 1.01; programs that do not come there, or whose chains diverge in more
than 1 of 1000 draws, are left out, and FILE says why. What FILE holds already is kept.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from pathlib import Path
from typing import Any

from _posteriors import Posterior, read_bank
from _processes import asked

WARMUP, DRAWS, MOST_DRAWS = 1000, 2500, 40_000  # of each chain
ESS, RHAT = 1000.0, 1.01
DIVERGENT = 1e-3  # share of the draws, at most
LIMIT = 900.0  # wall seconds of a run
MARGIN = 1.3  # more draws than the last run says are needed
CHAINS = 4
EMPTY: dict[str, Any] = {
    "source": "stanli's NUTS, 4 chains, by benchmarks/make_references.py",
    "columns": "mean, sd, 5 %, 50 % and 95 % quantiles, by posterior and parameter; "
    "errors: Monte Carlo standard errors of the mean and of the log sd",
    "posteriors": {},
    "errors": {},
    "runs": {},
    "left out": {},
}


def main() -> None:
    arguments = parse_arguments()
    try:
        bank = read_bank(arguments.programs)
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    names = arguments.only.split(",") if arguments.only else list(bank)
    if unknown := [name for name in names if name not in bank]:
        sys.exit(f"{', '.join(unknown)}: not in {arguments.programs}")
    kept = json.loads(arguments.output.read_text()) if arguments.output.exists() else EMPTY
    for name in names:
        if name in kept["posteriors"] and not arguments.only:
            continue
        for part in ("posteriors", "errors", "runs", "left out"):
            kept[part].pop(name, None)
        answer, reason = sampled(bank[name], arguments.limit)
        kept["runs"][name] = told(answer)
        if reason:
            kept["left out"][name] = reason
        else:
            kept["posteriors"][name], kept["errors"][name] = numbers(answer)
        print(f"{name:<48}{json.dumps(kept['runs'][name])}  {reason}", flush=True)
        partial = arguments.output.with_suffix(".part")
        partial.write_text(as_text(kept))
        partial.replace(arguments.output)


def as_text(kept: dict[str, Any]) -> str:
    """JSON with a line for each variable."""
    text = json.dumps(kept, indent=1)
    return re.sub(r"\[\s+([^\[\]]*?)\s+\]", lambda found: f"[{' '.join(found[1].split())}]", text) + "\n"


def sampled(posterior: Posterior, limit: float) -> tuple[dict[str, Any], str]:
    """The answer of the last run, and why it is no reference."""
    draws, answer, reason = DRAWS, {}, ""
    while True:
        further = ["1", str(WARMUP), str(draws)]
        found = asked("_nuts_run.py", posterior.program, posterior.data, None, *further, limit=limit)
        if found["trouble"]:
            before = f"does not mix: {reason}, then " if reason else ""
            return answer or found, before + found["trouble"]
        answer = found | {"draws": draws}
        reason = shortcoming(answer)
        longer = next_draws(answer)
        if not reason or longer is None:
            return answer, f"does not mix: {reason}" if reason else ""
        draws = longer


def shortcoming(answer: dict[str, Any]) -> str:
    """Why a run is not a reference yet; empty where it is."""
    rhat, ess = extremes(answer)
    share = answer["divergences"] / (CHAINS * answer["draws"])
    if not rhat < RHAT:
        return f"R-hat {rhat:.3f}"
    if not ess >= ESS:
        return f"{ess:.0f} effective draws"
    if share > DIVERGENT:
        return f"{answer['divergences']} divergent draws"
    return ""


def next_draws(answer: dict[str, Any]) -> int | None:
    """Draws of each chain that the next run takes; None where longer chains are not the way, or too long."""
    rhat, ess = extremes(answer)
    draws = int(answer["draws"])
    if rhat < RHAT and ess >= ESS:
        return None
    needed = math.ceil(draws * max(MARGIN * ESS / max(ess, 1.0), 2.0))
    return min(needed, MOST_DRAWS) if draws < MOST_DRAWS and ess > ESS * draws / MOST_DRAWS / 4 else None


def extremes(answer: dict[str, Any]) -> tuple[float, float]:
    """The largest R-hat and the fewest effective draws, of what is not constant."""
    moving = [found for found in answer["variables"].values() if not found["constant"]]
    rhats, sizes = [found["rhat"] for found in moving], [found["ess"] for found in moving]
    finite = all(map(math.isfinite, [*rhats, *sizes]))
    return (max(rhats, default=1.0), min(sizes, default=math.inf)) if finite else (math.inf, 0.0)


def numbers(answer: dict[str, Any]) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """What a reference holds: moments and quantiles, and their errors."""
    moments, errors = {}, {}
    for label, found in answer["variables"].items():
        own = found["moments"]
        moments[label] = [float(f"{x:.8g}") for x in (own["mean"], own["sd"], *found["quantiles"])]
        errors[label] = [float(f"{x:.3g}") for x in (own["mean_se"], own["log_sd_se"])]
    return moments, errors


def told(answer: dict[str, Any]) -> dict[str, Any]:
    if "variables" not in answer:
        return {}
    rhat, ess = extremes(answer)
    return {
        "draws of a chain": answer["draws"],
        "R-hat": round(rhat, 4),
        "effective draws": round(ess) if math.isfinite(ess) else None,
        "divergences": answer["divergences"],
        "CPU seconds": round(answer["seconds"]["nuts"], 1),
    }


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("programs", type=Path, help="the bank's folder")
    parser.add_argument("--output", type=Path, required=True, help="file of references")
    parser.add_argument("--only", help="names of posteriors, separated by commas; they are made again")
    parser.add_argument("--limit", type=float, default=LIMIT, help="wall seconds of a run")
    return parser.parse_args()


if __name__ == "__main__":
    main()
