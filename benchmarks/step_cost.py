"""What a whole step costs over the bare gradients it makes, measured side by side in one run.

    python benchmarks/step_cost.py [--sizes 100,1000,10000] [--draws 1,8] [--seconds 1.0]

Model: the bundled `linear` program, N latents, one observation each. For every row the bare gradients are a C loop over
the BridgeStan ABI at one point; the step is the trainer's own fused step (normals, Stan, gradient, Adam), timed over
chunks after compilation. Loop and step alternate, and each figure is the best of the rounds: the machine may be shared,
ratios matter.
"""

from __future__ import annotations

import argparse
import runpy
import time

import jax
import numpy as np

from _c_loop import gradient_microseconds
from avistan._bundled import models_root
from avistan.log_density import Backend, default_threads, native_available, register, use_backend
from avistan.methods import parse_method
from avistan.options import FitOptions
from avistan.precision import in_float64
from avistan.preparation import prepare, start_family
from avistan.training import Trainer
from stan_adapters.binding import BoundModel
from stan_adapters.data import read_data
from stan_adapters.program import Program
from stan_adapters.structure import inspect_structure

LINEAR = models_root() / "linear"
ROUNDS = 5
METHODS = ("fvi", "avi:mlp(32)")


def main() -> None:
    arguments = parse_arguments()
    simulate = runpy.run_path(str(LINEAR / "simulate.py"))["simulate"]
    print(f"linear model, microseconds, best of {ROUNDS} rounds, {default_threads()} threads")
    print(f"{'N':>8}{'draws':>7}{'method':>14}{'backend':>10}{'gradients':>11}{'step':>10}{'ratio':>8}")
    for size in arguments.sizes:
        program = Program.from_file(LINEAR / "linear.stan")
        with BoundModel(program, read_data(program, simulate(N=size))) as model:
            for draws in arguments.draws:
                measure(model, size, draws, arguments.seconds)


@in_float64
def measure(model: BoundModel, size: int, draws: int, seconds: float) -> None:
    level = inspect_structure(model).level
    options = FitOptions(draws_per_step=draws)
    preparation = prepare(model, level, seed=1, num_references=8, max_rank=8)
    for name in METHODS:
        for backend in backends():
            family, inputs = start_family(preparation, parse_method(name))
            with register(model) as slot, use_backend(backend):
                trainer = Trainer(family, inputs, slot.index, options.training, jax.random.key(1))
                step, bare = side_by_side(model, trainer, draws, seconds)
            print(
                f"{size:>8}{draws:>7}{name:>14}{backend:>10}{bare:>11.2f}{step:>10.2f}{step / bare:>8.2f}",
                flush=True,
            )


def backends() -> list[Backend]:
    return ["native", "callback"] if native_available() else ["callback"]


def side_by_side(model: BoundModel, trainer: Trainer, draws: int, seconds: float) -> tuple[float, float]:
    """Microseconds of a step and of the bare gradients it makes."""
    size = trainer.options.chunk
    rates = np.full(size, 0.01)
    trainer.run(rates)
    steps, bares = [], []
    for _ in range(ROUNDS):
        bares.append(draws * gradient_microseconds(model, np.zeros(model.dim)))
        done, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds / ROUNDS:
            trainer.run(rates)
            done += size
        steps.append(1e6 * (time.perf_counter() - started) / done)
    return min(steps), min(bares)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=numbers, default=[100, 1000, 10000])
    parser.add_argument("--draws", type=numbers, default=[1, 8])
    parser.add_argument("--seconds", type=float, default=1.0, help="of stepping for each row")
    return parser.parse_args()


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    main()
