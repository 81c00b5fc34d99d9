"""Default fits against NUTS, on a dozen programs that had no part in making the families.

    python benchmarks/against_nuts.py [--only WORD] [--draws 700]

Every program is fitted by `Model.fit(seed=1)`, and sampled by stanli's NUTS, 4 chains. All numbers are on the
unconstrained scale:

mean: the largest |error| of a global's mean, in NUTS's sds.
sd globals: sds over those of NUTS, the mean over the globals and the smallest; sd locals: the mean over the latents.
corr: mean |error| of the correlations between a global and a latent, where NUTS's are beyond 0.3 either way.
corrected: the same numbers of the globals as `fit.posterior()` hands them out; `not reliable` where it says of itself
    that they are not known to be those of the posterior.
seconds: of the fit, with all stages of the family; beside it those of NUTS.

NUTS has errors too; its largest R-hat stands in the last column.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from _further_programs import FURTHER
from _moments import Moments, moments
from avistan.comparison.references import nuts
from avistan.model import Model
from avistan.posterior.handed_out import unconstrained_posterior

FITTED_DRAWS = 4000


def main() -> None:
    given = parse_arguments()
    print(
        f"{'':<65}{'':>5}{'sd globals':>14}{'sd':>8}{'':>7}{'corrected sd':>20}{'seconds':>16}\n"
        f"{'program':<19}{'ended with':<46}{'mean':>5}{'mean':>8}{'least':>6}{'locals':>8}{'corr':>7}"
        f"{'mean':>6}{'mean':>8}{'least':>6}{'fit':>8}{'NUTS':>8}  R-hat"
    )
    ratios = []
    for program, make in FURTHER.items():
        if given.only in program:
            ratios.append(measure(program, make(), given.draws))
    apart = [100 * abs(ratio - 1) for ratio in ratios]
    print(
        f"\nGlobals' sds are off by {np.mean(apart):.1f} % on average over programs, {max(apart):.1f} % at most."
    )


def measure(program: str, model: Model, draws: int) -> float:
    """Print a program's line; the mean ratio of its globals' sds."""
    level = model.inspect().level
    assert level is not None
    started = time.perf_counter()
    fit = model.fit(seed=1)
    seconds = time.perf_counter() - started
    reference = nuts(model.bound, seed=1, warmup=draws, draws=draws)
    truth = moments(model, level, reference.theta.reshape(-1, model.bound.dim))
    own = moments(model, level, fit.unconstrained_draws(FITTED_DRAWS)[0])
    corrected = f"{'not reliable':>20}"
    if fit.corrected().correction.reliable:
        corrected = globals_told(moments(model, level, unconstrained_posterior(fit, FITTED_DRAWS)), truth)
    ratio = float(np.mean(own.sd_globals / truth.sd_globals))
    corr = own.corr_error(truth)
    print(
        f"{program:<19}{fit.method.name:<46}{globals_told(own, truth)[1:]}"
        f"{np.mean(own.sd_locals / truth.sd_locals):>8.2f}{'' if np.isnan(corr) else f'{corr:.2f}':>7}"
        f"{corrected}{seconds:>8.1f}{reference.seconds:>8.1f}  {reference.max_rhat:.3f}",
        flush=True,
    )
    return ratio


def globals_told(own: Moments, truth: Moments) -> str:
    error = np.abs(own.mean_globals - truth.mean_globals) / truth.sd_globals
    ratio = own.sd_globals / truth.sd_globals
    return f"{error.max():>6.2f}{ratio.mean():>8.2f}{ratio.min():>6.2f}"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="programs whose name has this in it")
    parser.add_argument("--draws", type=int, default=700, help="of each of NUTS's 4 chains, after as many")
    return parser.parse_args()


if __name__ == "__main__":
    main()
