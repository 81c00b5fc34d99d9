"""The numbers under "Known answers" of the bundled examples.

    python benchmarks/known_answers.py [--draws 2000]

Closed forms for `linear` and `saw_time_series`, quadrature for `nonlinear`, the Kalman filter and smoother for
`state_space`; NUTS by stanli's sampler (4 chains, seed 1) for the others; and, for `lsat_2pl`, maximum marginal
likelihood with the abilities integrated out by Gauss-Hermite quadrature (Bock & Lieberman 1970).
"""

from __future__ import annotations

import argparse
import json
import runpy
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_expit, logsumexp

from avistan.cli.examples import models_root
from avistan.comparison.references import nuts
from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.stan_data import read_data
from stan_adapters.language.program import Program

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
    saw_time_series()
    nonlinear()
    state_space()
    marginal_likelihood()
    for folder, name, variables in EXAMPLES:
        by_nuts(folder, name, variables, draws)


def closed_forms() -> None:
    simulate, answers = script("linear", "simulate")["simulate"], script("linear", "closed_form")
    print("linear: ELBO of the mean field, of the constant factor, shortfall, log Z, in nats")
    for size in (10, 1000, 10_000):
        data = simulate(size)
        best, constant = (answers[f"{kind}_optimum"](data).elbo for kind in ("mean_field", "constant_factor"))
        numbers = (best, constant, best - constant, answers["log_evidence"](data))
        print(f"  N = {size:<6}", "".join(f"{number:12.4f}" for number in numbers))
    print(f"  paper's loss at the last mean field: {paper_loss(best, size + 1):.4f}")


def saw_time_series() -> None:
    data, answers = bundled_data("saw_time_series"), script("saw_time_series", "closed_form")
    best = answers["mean_field_optimum"](data)
    theta, theta_sd = answers["posterior_mean"](data)[0], answers["posterior_sd"](data)[0]
    print(
        f"saw_time_series: ELBO of the mean field {best.elbo:.4f}, log Z {answers['log_evidence'](data):.4f}"
    )
    print(f"  theta: mean {theta:.4f}, posterior sd {theta_sd:.4f}, sd in the mean field {best.sd[0]:.4f}")
    print("  paper's loss of the mean field, and of the best polynomial of x_n alone, by its degree")
    losses = {degree: answers["polynomial_optimum"](data, degree).elbo for degree in (0, 1, 2, 3, 5, 10)}
    print(f"  {paper_loss(best.elbo, best.mean.size):.4f}", end="")
    print("".join(f"   {k}: {paper_loss(elbo, best.mean.size):.2f}" for k, elbo in losses.items()))


def nonlinear() -> None:
    data, answers = bundled_data("nonlinear"), script("nonlinear", "quadrature")
    print("nonlinear: mean field by quadrature, from two starts: ELBO, paper's loss, theta's mean and sd")
    for start in (0.0, 2.0):
        best = answers["mean_field_optimum"](data, start)
        loss = paper_loss(best.elbo, best.mean.size)
        print(f"  from {start}: {best.elbo:.2f}  {loss:.2f}  {best.mean[0]:.4f}  {best.sd[0]:.4f}")


def state_space() -> None:
    data, answers = bundled_data("state_space"), script("state_space", "kalman")
    best, (mu, sd) = answers["mean_field_optimum"](data), answers["level"](data)
    likelihood = answers["log_marginal_likelihood"](data, mu)
    print(f"state_space: ELBO of the mean field {best.elbo:.4f}, log Z {answers['log_evidence'](data):.4f}")
    print(f"  mu: mean {mu:.4f}, sd {sd:.4f}; log marginal likelihood at that mean {likelihood:.4f}")
    print("  nats short of the mean field: constant factor; best linear functions of windows, by their reach")
    short = {reach: best.elbo - answers["window_optimum"](data, reach).elbo for reach in (None, *range(9))}
    print(f"  {short.pop(None):.2f}" + "".join(f"   {reach}: {nats:.4f}" for reach, nats in short.items()))


def script(folder: str, name: str) -> dict[str, Any]:
    """The functions of an example's own script."""
    return runpy.run_path(str(models_root() / folder / f"{name}.py"))


def bundled_data(folder: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((models_root() / folder / "data.json").read_text())
    return data


def paper_loss(elbo: float, dim: int) -> float:
    """The loss of Margossian & Blei, UAI 2024."""
    return 0.5 * dim * float(np.log(2 * np.pi)) - elbo


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
