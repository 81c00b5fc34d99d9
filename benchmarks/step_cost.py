"""What a whole step costs over the bare gradients it makes, measured side by side in one run.

    python benchmarks/step_cost.py [--sizes 100,1000,10000,100000,1000000] [--draws 1,8] [--seconds 1.0]

Model: the bundled `linear` program, N latents, one observation each. For every row the bare gradients are a C loop over
the BridgeStan ABI at one point; the step is a whole step of training (normals, Stan, gradient, Adam), timed over
chunks after compilation. Loop and step alternate, and each figure is the best of the rounds: the machine may be shared,
ratios matter.

Steps on minibatches have a table of their own, in which all numbers of units take turns. There the bare gradient is
that of one shard; steps are those after the first round, in which all shards are bound while training waits for them,
and which has a column of its own.

The last table is the network's share of a step: forward and backward pass of the default network for the units of a
step, over the time that its matrix products alone would take at the rate of a large float32 product of XLA's on this
machine, which is measured in the same run.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import runpy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from _c_loop import gradient_microseconds
from _steps import TimedSteps
from avistan.cli.examples import models_root
from avistan.density.backend import Backend, native_available
from avistan.density.handles import DensityHandles
from avistan.density.slots import default_threads, register
from avistan.family.family import trainable
from avistan.family.method import parse_method
from avistan.fitting.shard_preparation import prepare_large
from avistan.runtime.precision import in_float64
from avistan.start.preparation import prepare, start_family
from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.stan_data import read_data
from stan_adapters.language.program import Program
from stan_adapters.structure.structure import Structure, inspect_structure, with_unit_data

LINEAR = models_root() / "linear"
ROUNDS, TURNS = 5, 20
CHUNK = 250
MOST_AT_ONCE = 10_000  # units in every step of a network
FEWEST_MINIBATCHES = 10_000
MOST_CALLBACK = 10_000
HEADER = f"{'N':>8}{'draws':>7}{'method':>16}{'backend':>10}{'gradients':>11}{'step':>10}{'ratio':>8}"


def main() -> None:
    arguments = parse_arguments()
    simulate = runpy.run_path(str(LINEAR / "simulate.py"))["simulate"]
    print(f"linear model, microseconds, best of {ROUNDS} rounds, {default_threads()} threads")
    print(HEADER)
    program = Program.from_file(LINEAR / "linear.stan")
    for size in arguments.sizes:
        with BoundModel(program, read_data(program, simulate(N=size))) as model:
            structure = inspect_structure(model)
            for draws in arguments.draws:
                measure(model, structure, size, draws, arguments.seconds)
    many = [size for size in arguments.sizes if size >= FEWEST_MINIBATCHES]
    if many:
        print(
            f"\nA-VI on minibatches, microseconds, best of {TURNS} turns; `over` is the step over that of the first N"
        )
        print(
            f"{'N':>8}{'draws':>7}{'units':>7}{'gradients':>11}{'step':>10}{'ratio':>8}{'over':>12}{'first round':>14}"
        )
        for draws in arguments.draws:
            measure_minibatches(program, simulate, many, draws, 2 * arguments.seconds)
    print()
    network_share(arguments.seconds)


@in_float64
def measure(model: BoundModel, structure: Structure, size: int, draws: int, seconds: float) -> None:
    preparation = prepare(model, structure.level, seed=1, num_references=8, max_rank=8)
    for name in ("fvi", "avi") if size <= MOST_AT_ONCE else ("fvi",):
        for backend in backends(size):
            family, inputs = start_family(preparation, parse_method(name))
            without = "1" if backend == "callback" else "0"
            with mock.patch.dict(os.environ, AVISTAN_NO_NATIVE=without), register(model) as slot:
                trainer = TimedSteps(family, inputs, slot.index, jax.random.key(1), draws=draws)
                step, bare = side_by_side(model, trainer, draws, seconds)
            row(size, draws, name, backend, bare, step)


@in_float64
def measure_minibatches(
    program: Program,
    simulate: Callable[..., dict[str, Any]],
    sizes: Sequence[int],
    draws: int,
    seconds: float,
) -> None:
    """Steps on minibatches of every number of units, in turns: a slow moment of the machine meets all of them."""
    method = parse_method("avi")
    rates = np.full(CHUNK, 0.01)
    with contextlib.ExitStack() as stack:
        runs = []
        for size in sizes:
            model = stack.enter_context(BoundModel(program, read_data(program, simulate(N=size))))
            structure = with_unit_data(model, inspect_structure(model))
            large = prepare_large(
                model, structure.level, structure.slicing, seed=1, num_references=8, max_rank=8
            ).minibatches
            batches = stack.enter_context(large.batches(large.unit_inputs(method)))
            family, inputs = large.start_family(method)
            trainer = TimedSteps(family, inputs, -1, jax.random.key(1), draws=draws, batches=batches)
            started, steps = time.perf_counter(), batches.steps_per_round // CHUNK * CHUNK
            for _ in range(steps // CHUNK):
                trainer.run(rates)
            first = 1e6 * (time.perf_counter() - started) / steps
            runs.append(_MinibatchRun(size, large.size, large.start.model, trainer, first))
        for _ in range(TURNS):
            for run in runs:
                run.bare.append(draws * gradient_microseconds(run.shard, np.zeros(run.shard.dim)))
                started = time.perf_counter()
                while time.perf_counter() - started < seconds / TURNS:
                    before = time.perf_counter()
                    run.trainer.run(rates)
                    run.steps.append(1e6 * (time.perf_counter() - before) / CHUNK)
        for run in runs:
            step, bare = min(run.steps), min(run.bare)
            print(
                f"{run.size:>8}{draws:>7}{run.units:>7}{bare:>11.2f}{step:>10.2f}{step / bare:>8.2f}"
                f"{step / min(runs[0].steps):>12.2f}{run.first:>14.2f}",
                flush=True,
            )


@dataclass(frozen=True, eq=False)
class _MinibatchRun:
    """Training of one number of units; microseconds of its steps, of the first round's, and of bare gradients."""

    size: int
    units: int
    shard: BoundModel
    trainer: TimedSteps
    first: float
    steps: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)


def row(size: int, draws: int, name: str, backend: str, bare: float, step: float) -> None:
    print(
        f"{size:>8}{draws:>7}{name:>16}{backend:>10}{bare:>11.2f}{step:>10.2f}{step / bare:>8.2f}", flush=True
    )


def backends(size: int) -> list[Backend]:
    if not native_available():
        return ["callback"]
    return ["native", "callback"] if size <= MOST_CALLBACK else ["native"]


def side_by_side(
    model: DensityHandles, trainer: TimedSteps, draws: int, seconds: float
) -> tuple[float, float]:
    """Microseconds of a step and of the bare gradients it makes."""
    steps, bares = [], []
    started = time.perf_counter()
    trainer.run(np.full(CHUNK, 0.01))
    size = max(1, min(CHUNK, round(CHUNK * seconds / ROUNDS / (time.perf_counter() - started))))
    rates = np.full(CHUNK if size > CHUNK // 4 else size, 0.01)
    trainer.run(rates)
    for _ in range(ROUNDS):
        bares.append(draws * gradient_microseconds(model, np.zeros(model.dim)))
        done, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds / ROUNDS or not done:
            trainer.run(rates)
            done += len(rates)
        steps.append(1e6 * (time.perf_counter() - started) / done)
    return min(steps), min(bares)


@in_float64
def network_share(seconds: float) -> None:
    """The default network's passes against its products at the machine's rate."""
    print("network of the default inference function, microseconds")
    print(f"{'units':>8}{'GFLOP/s':>10}{'products':>10}{'passes':>10}{'ratio':>8}")
    simulate = runpy.run_path(str(LINEAR / "simulate.py"))["simulate"]
    program = Program.from_file(LINEAR / "linear.stan")
    with BoundModel(program, read_data(program, simulate(N=10_000))) as model:
        level = inspect_structure(model).level
        preparation = prepare(model, level, seed=1, num_references=24, max_rank=16)
        family, inputs = start_family(preparation, parse_method("avi"))
    large = jnp.ones((2048, 2048), dtype=jnp.float32)
    product = jax.jit(lambda a: a @ a)
    for units in (1000, 10_000):
        some = 50
        by_xla = passes_of(family, inputs[:units])
        rates, times = [], []
        for _ in range(ROUNDS):
            rates.append(2 * 2048**3 / fastest(lambda: product(large), seconds / ROUNDS))
            times.append(fastest(functools.partial(by_xla, some), seconds / ROUNDS) / some)
        needed = products_of(family, inputs.shape[1], units) / max(rates)
        print(
            f"{units:>8}{max(rates) / 1e9:>10.0f}{1e6 * needed:>10.0f}"
            f"{1e6 * min(times):>10.0f}{min(times) / needed:>8.2f}"
        )


def passes_of(family: object, inputs: jax.Array) -> Callable[[int], jax.Array]:
    """Forward and backward passes of the inference function, so many one after the other."""
    moved, fixed = eqx.partition(family.inference, trainable(family).inference)
    weights = jnp.ones((sum(family.local.sizes), len(inputs)), dtype=jnp.float32)

    def step(parameters: object, _: None) -> tuple[object, None]:
        def weighted(parameters: object) -> jax.Array:
            nu = eqx.combine(parameters, fixed)(inputs)
            return jnp.sum(jnp.concatenate(nu) * weights)

        gradient = jax.grad(weighted)(parameters)
        return jax.tree.map(lambda p, g: p - jnp.asarray(1e-9, p.dtype) * g, parameters, gradient), None

    return jax.jit(lambda count: jax.lax.scan(step, moved, None, length=count)[0], static_argnums=0)


def products_of(family: object, num_inputs: int, units: int) -> float:
    """Floating point operations of the products: forward, for the weights, and back through all but the inputs."""
    layers = [weights.shape for weights, _ in family.inference.layers]
    total = sum(3 * a * b for a, b in layers) - layers[0][0] * layers[0][1]
    if family.inference.linear is not None:
        total += 2 * num_inputs * family.inference.linear.shape[1]
    return 2.0 * total * units


def fastest(run: Callable[[], object], seconds: float) -> float:
    """Seconds of the fastest of some runs."""
    jax.block_until_ready(run())
    best, end = np.inf, time.perf_counter() + seconds
    while time.perf_counter() < end or not np.isfinite(best):
        started = time.perf_counter()
        jax.block_until_ready(run())
        best = min(best, time.perf_counter() - started)
    return best


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=numbers, default=[100, 1000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--draws", type=numbers, default=[1, 8])
    parser.add_argument("--seconds", type=float, default=1.0, help="of stepping for each row")
    return parser.parse_args()


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    main()
