"""The numbers under "Known answers" of the bundled examples.

    python benchmarks/known_answers.py [--draws 2000]

Closed forms for `linear`; NUTS by stanli's sampler (4 chains, seed 1) for the others; and, for `lsat_2pl`, maximum
marginal likelihood with the abilities integrated out by Gauss-Hermite quadrature (Bock & Lieberman 1970).
"""

from __future__ import annotations

import argparse
import runpy

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_expit, logsumexp

from avistan._bundled import models_root
from avistan.competitors import nuts
from stan_adapters.binding import BoundModel
from stan_adapters.data import read_data
from stan_adapters.program import Program

EXAMPLES = (
    ("eight_schools", "eight_schools", ("mu", "tau", "theta")),
    ("eight_schools", "eight_schools_centered", ("mu", "tau")),
    ("lsat_2pl", "lsat_2pl", ("a", "b")),
    ("random_slopes", "random_slopes", ("mu_alpha", "mu_beta", "tau_alpha", "tau_beta")),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=2000, help="of each chain, after as many to warm up")
    draws = parser.parse_args().draws
    closed_forms()
    marginal_likelihood()
    for folder, name, variables in EXAMPLES:
        by_nuts(folder, name, variables, draws)


def closed_forms() -> None:
    folder = models_root() / "linear"
    simulate = runpy.run_path(str(folder / "simulate.py"))["simulate"]
    answers = runpy.run_path(str(folder / "closed_form.py"))
    print("linear: ELBO of the mean field, of the constant factor, shortfall, log Z, in nats")
    for size in (10, 1000, 10_000):
        data = simulate(size)
        best, constant = (answers[f"{kind}_optimum"](data).elbo for kind in ("mean_field", "constant_factor"))
        numbers = (best, constant, best - constant, answers["log_evidence"](data))
        print(f"  N = {size:<6}", "".join(f"{number:12.4f}" for number in numbers))
    paper_loss = 0.5 * (size + 1) * np.log(2 * np.pi) - best
    print(f"  paper's loss at the last mean field: {paper_loss:.4f}")


def marginal_likelihood() -> None:
    folder = models_root() / "lsat_2pl"
    y = np.asarray(read_data(Program.from_file(folder / "lsat_2pl.stan"), folder / "data.json")["y"])
    nodes, weights = np.polynomial.hermite_e.hermegauss(61)
    log_weights = np.log(weights) - 0.5 * np.log(2 * np.pi)

    def loss(parameters: np.ndarray) -> float:
        a, b = np.split(parameters, 2)
        logits = b + a * nodes[:, None]
        per_node = y @ log_expit(logits).T + (1 - y) @ log_expit(-logits).T
        return -float(logsumexp(per_node + log_weights, axis=1).mean())

    best = minimize(loss, np.r_[np.ones(5), np.zeros(5)], method="BFGS")
    a, b = np.split(best.x, 2)
    print(
        f"lsat_2pl: maximum marginal log likelihood {-best.fun * len(y):.3f}, a = {a.round(3)}, b = {b.round(3)}"
    )


def by_nuts(folder: str, name: str, variables: tuple[str, ...], draws: int) -> None:
    program = Program.from_file(models_root() / folder / f"{name}.stan")
    with BoundModel(program, read_data(program, models_root() / folder / "data.json")) as model:
        reference = nuts(model, seed=1, warmup=draws, draws=draws)
        flat = reference.theta.reshape(-1, model.dim)
        values, _ = model.constrain(flat, generated_quantities=False)
    print(
        f"{name}: NUTS, {len(flat)} draws, largest R-hat {reference.max_rhat:.3f}, "
        f"{reference.divergences} divergences; mean (sd)"
    )
    for variable in variables:
        mean, sd = (np.atleast_1d(f(values[variable], axis=0)) for f in (np.mean, np.std))
        print(f"  {variable:<10}", "  ".join(f"{m:.3f} ({s:.3f})" for m, s in zip(mean, sd, strict=True)))


if __name__ == "__main__":
    main()
