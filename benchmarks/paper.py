"""The experiments of Margossian & Blei, "Amortized Variational Inference: When and Why?" (UAI 2024), beside our fits.

    python benchmarks/paper.py [--quick] [--only linear saw ...] [--output FOLDER] [--seed 1]

Losses are the paper's, 0.5 D log(2 pi) - ELBO with D all unconstrained parameters, in nats; smaller is better. The
paper's numbers are those of the authors' notebooks, each the best of ten seeds where it is one number. "short" is the
distance to the optimum of F-VI where a closed form or quadrature knows it. Seconds are those of training, without
compilation. Beside the tables come figures of the ELBO (paper_*.png in FOLDER). --quick takes small sizes and few steps
and makes figures only if --output is given.
"""

from __future__ import annotations

import argparse
import json
import runpy
import textwrap
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import avistan as avi
from avistan.comparison.results import Comparison
from avistan.comparison.rows import Row
from avistan.pictures.house_style import COLOURS
from avistan.report.figures import elbo_trace, save

Data = dict[str, Any]
_KNOWN = "exact F-VI optimum"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the command line chose."""

    quick: bool
    seed: int
    figures: Path | None

    def chosen(self, paper: Mapping[str, str], *quick: str) -> dict[str, str]:
        """All methods and the paper's numbers; of a quick run some methods, at sizes that are not the paper's."""
        return dict.fromkeys(quick, "-") if self.quick else dict(paper)

    def draw(self, name: str, make: Callable[[], Figure]) -> None:
        if self.figures is not None:
            save(make(), self.figures / f"paper_{name}.png")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=EXPERIMENTS, default=list(EXPERIMENTS))
    parser.add_argument("--output", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    output = given.output if given.output or given.quick else Path(__file__).with_name("results")
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
    settings = Settings(quick=given.quick, seed=given.seed, figures=output)
    started = time.perf_counter()
    for name in given.only:
        EXPERIMENTS[name](settings)
    print(f"{time.perf_counter() - started:.0f} s in all")


# ---- The experiments ---------------------------------------------------------------------------------------


def linear(settings: Settings) -> None:
    """Every answer is known; the optimal inference function is a line."""
    data = _function("linear", "simulate.py", "simulate")(1000 if settings.quick else 10_000)
    optimum = _function("linear", "closed_form.py", "mean_field_optimum")(data).elbo
    paper = {
        "fvi": "1 to 370 short",
        "constant": "1144 short",
        "avi:polynomial(1):data(x)": "under 0.1 short",
        "avi:polynomial(2):data(x)": "under 0.1 short",
        "avi": "-",
    }
    paper = settings.chosen(paper, "fvi", "constant", "avi:polynomial(1):data(x)", "avi")
    comparison = _compare(settings, "linear", data, paper, steps=500 if settings.quick else 4000)
    _print(comparison, paper, optimum, "closed form")
    settings.draw("linear", lambda: elbo_trace(_without(comparison, "constant")))


def nonlinear(settings: Settings) -> None:
    """The authors' data. Units have several local optima, so trained F-VI need not reach the best one."""
    data = _data("nonlinear")
    if settings.quick:
        data = {"N": 500, "x": data["x"][:500]}
    optimum = _function("nonlinear", "quadrature.py", "mean_field_optimum")(data).elbo
    paper = {
        "fvi": "32398.9",
        "constant": "36700.1",
        "avi:polynomial(1):data(x)": "-",
        "avi:polynomial(2):data(x)": "-",
        "avi:mlp(1):data(x)": "35638.7",
        "avi:mlp(4):data(x)": "32391.9",
        "avi:mlp(16):data(x)": "32386.0",
        "avi:mlp(32):data(x)": "32385.4",
        "avi": "-",
    }
    paper = settings.chosen(paper, "fvi", "avi:mlp(1):data(x)", "avi:mlp(16):data(x)", "avi")
    comparison = _compare(settings, "nonlinear", data, paper, steps=500 if settings.quick else 4000)
    _print(comparison, paper, optimum, "quadrature")
    left_out = "constant", "avi:polynomial(1):data(x)", "avi:polynomial(2):data(x)", "avi:mlp(16):data(x)"
    settings.draw("nonlinear", lambda: elbo_trace(_without(comparison, *left_out)))


def saw(settings: Settings) -> None:
    """The authors' data. x_n alone is not enough; x_{n-1} and x_n are, and so is the signature."""
    data = _data("saw_time_series")
    optimum = _function("saw_time_series", "closed_form.py", "mean_field_optimum")(data).elbo
    paper = {
        "fvi": "553.08",
        "constant": "2933.6",
        "avi:mlp(4):data(x)": "892.0",
        "avi:mlp(20):data(x)": "885.2",
        "avi:data(x)": "-",
        "avi:mlp(6):window(x, -1, 0)": "553.08",
        "avi": "-",
    }
    paper = settings.chosen(paper, "fvi", "avi:mlp(4):data(x)", "avi:mlp(6):window(x, -1, 0)", "avi")
    comparison = _compare(settings, "saw_time_series", data, paper, steps=1000 if settings.quick else 4000)
    _print(comparison, paper, optimum, "closed form")
    best = _function("saw_time_series", "closed_form.py", "polynomial_optimum")
    exact = ", ".join(f"{_loss(best(data, k).elbo, comparison):.1f} ({k})" for k in (1, 2, 3, 5, 10))
    print(f"exact loss of the best polynomial of x_n alone, by its degree: {exact}\n")
    settings.draw("saw", lambda: elbo_trace(_without(comparison, "constant", "avi:data(x)")))


def bnn(settings: Settings) -> None:
    """The width that an inference function needs, for more and more units."""
    sizes, steps = ((100, 400), 500) if settings.quick else ((100, 1000, 10_000), 4000)
    widths = (1, 16) if settings.quick else (1, 4, 16, 64)
    simulate = _function("bnn", "simulate.py", "simulate")
    methods = ["fvi", *(f"avi:mlp({width}):data(x)" for width in widths)]
    if not settings.quick:
        methods.append("avi")
    gaps = {}
    for size in sizes:
        draws = 8 if size < 10_000 else 2  # large N averages the noise of a draw over its units
        comparison = _compare(settings, "bnn", simulate(size), methods, steps=steps, draws_per_step=draws)
        _print(comparison, dict.fromkeys(methods, "-"))
        gaps[size] = [comparison[name] for name in methods[1:]]
    print("gap to F-VI per unit, thousandths of a nat (+- its standard error)")
    print(f"{'method':<28}" + "".join(f"{f'N = {size}':>20}" for size in sizes))
    for number, name in enumerate(methods[1:]):
        cells = [
            _pair(row.gap_to_fvi, row.gap_se, 1000 / size, 1)
            for size, row in ((size, gaps[size][number]) for size in sizes)
        ]
        print(f"{name:<28}" + "".join(f"{cell:>20}" for cell in cells))
    print()
    settings.draw("bnn", lambda: _widths(gaps))


def state_space(settings: Settings) -> None:
    """The counter-example: latents depend on their neighbours, and no window of the data is enough."""
    data = _data("state_space")
    window_optimum = _function("state_space", "kalman.py", "window_optimum")
    optimum = _function("state_space", "kalman.py", "mean_field_optimum")(data).elbo
    reaches = (1,) if settings.quick else (0, 1, 2, 3)
    windows = {reach: f"avi:polynomial(1):{_window('y', reach)}" for reach in reaches}
    methods = ["fvi", *windows.values()]
    if not settings.quick:
        methods += ["constant", f"avi:mlp(32):{_window('y', 1)}", "avi"]
    comparison = _compare(settings, "state_space", data, methods, steps=1000 if settings.quick else 4000)
    print(textwrap.fill(comparison.structure.reason, 120))
    _print(comparison, dict.fromkeys(methods, "-"), optimum, "Kalman smoother")
    exact = {reach: optimum - window_optimum(data, reach).elbo for reach in (0, 1, 2, 3, 4, 6, 8)}
    print("exact shortfall of the best linear function of a window, by the window's reach")
    print("   ".join(f"{reach}: {nats:.4f}" for reach, nats in exact.items()), end="\n\n")
    left_out = "constant", *(name for reach, name in windows.items() if reach > 1)
    settings.draw("state_space", lambda: elbo_trace(_without(comparison, *left_out)))


def digits(settings: Settings) -> None:
    """Beyond the paper's simulations: real images."""
    data = _data("digits")
    if settings.quick:
        data |= {"N": 100, "x": data["x"][:100], "H": 8}
    methods = ["fvi", "avi", *([] if settings.quick else ["avi:mlp(128)", "constant"])]
    steps = 200 if settings.quick else 6000
    comparison = _compare(settings, "digits", data, methods, steps=steps, draws_per_step=2, level="N")
    _print(comparison, dict.fromkeys(methods, "-"))
    settings.draw("digits", lambda: _images(comparison))


EXPERIMENTS: dict[str, Callable[[Settings], None]] = {
    "linear": linear,
    "nonlinear": nonlinear,
    "saw": saw,
    "bnn": bnn,
    "state_space": state_space,
    "digits": digits,
}


# ---- Fits and tables ---------------------------------------------------------------------------------------


def _function(folder: str, file: str, name: str) -> Callable[..., Any]:
    """A function of an example's own scripts."""
    function: Callable[..., Any] = runpy.run_path(str(avi.models_root() / folder / file))[name]
    return function


def _data(folder: str) -> Data:
    data: Data = json.loads((avi.models_root() / folder / "data.json").read_text())
    return data


def _compare(settings: Settings, name: str, data: Data, methods: Iterable[str], **options: Any) -> Comparison:
    model = avi.Model(avi.models_root() / name / f"{name}.stan", data=data)
    return model.compare(list(methods), seed=settings.seed, **options)


def _window(name: str, reach: int) -> str:
    return f"window({name}, {', '.join(str(k) for k in range(-reach, reach + 1))})"


def _loss(elbo: float, comparison: Comparison) -> float:
    return 0.5 * comparison.unconstrained_dim * float(np.log(2 * np.pi)) - elbo


def _print(
    comparison: Comparison, paper: Mapping[str, str], optimum: float | None = None, known_by: str = ""
) -> None:
    """The table of one experiment."""
    c = comparison
    draws = c.options.draws_per_step
    print(
        f"{c.program}: {c.units} units, {c.unconstrained_dim} parameters, {c.structure.verdict}; "
        f"{c.options.steps} steps of {draws} draws from a shared start of {c.seconds_prepare:.1f} s"
    )
    width = max(len(name) for name in [*paper, _KNOWN]) + 2
    titles = f"{'paper':>16}{'loss':>12}{'+-':>7}{'short':>11}{'gap to F-VI':>13}{'+-':>7}{'seconds':>9}"
    print(f"{'method':<{width}}{titles}")
    if optimum is not None:
        print(f"{_KNOWN:<{width}}{'':>16}{_loss(optimum, c):>12.2f}  ({known_by})")
    notes = []
    for row in c.rows:
        if row.elbo is None or row.elbo_se is None or row.cost is None:
            notes.append(f"{row.method}: {row.outcome}. {row.reason}")
            continue
        short = "" if optimum is None else f"{optimum - row.elbo:.2f}"
        gap = ("", "") if row.gap_to_fvi is None else (f"{row.gap_to_fvi:.2f}", f"{row.gap_se:.2f}")
        print(
            f"{row.method:<{width}}{paper[row.method]:>16}{_loss(row.elbo, c):>12.2f}{row.elbo_se:>7.2f}{short:>11}"
            f"{gap[0]:>13}{gap[1]:>7}{row.cost.seconds:>9.1f}"
        )
        if row.outcome != "settled":
            notes.append(f"{row.method}: {row.outcome}")
    print("\n".join([*notes, ""]), flush=True)


def _without(comparison: Comparison, *methods: str) -> Comparison:
    """The comparison with fewer rows, for a figure that stays readable."""
    return replace(comparison, rows=tuple(row for row in comparison.rows if row.method not in methods))


def _pair(value: float | None, se: float | None, factor: float, digits: int) -> str:
    if value is None or se is None:
        return "-"
    return f"{factor * value:.{digits}f} +- {factor * se:.{digits}f}"


# ---- Pictures ----------------------------------------------------------------------------------------------


def _widths(gaps: Mapping[int, Sequence[Row]]) -> Figure:
    """Gap per unit against the width, a line for each number of units."""
    figure = Figure(figsize=(4.6, 3.2), layout="constrained")
    axes = figure.subplots()
    for colour, (size, rows) in zip(COLOURS, gaps.items(), strict=False):
        names = [row.method.removeprefix("avi:").removesuffix(":data(x)") for row in rows]
        values = [np.nan if row.gap_to_fvi is None else row.gap_to_fvi / size for row in rows]
        axes.plot(names, values, "o-", color=colour, label=f"N = {size}")
    axes.set_yscale("symlog", linthresh=0.001)
    axes.grid(axis="y", color="#e1e4e8", linewidth=0.7)
    axes.set_title("gap to F-VI, nats per unit", loc="left", fontsize=9.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def _images(comparison: Comparison, across: int = 12) -> Figure:
    """Images that the fitted network makes over the latent plane; below, data and their reconstructions."""
    fit = comparison["avi"].fit
    assert fit is not None
    W1, b1, W2, b2, z = (fit.stan_variable(name).mean(axis=0) for name in ("W1", "b1", "W2", "b2", "z"))
    places = np.linspace(-2, 2, across)
    grid = np.stack(np.meshgrid(places, places[::-1]), axis=-1).reshape(-1, 2)
    shown = np.arange(2 * across)

    def decoded(at: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-(np.tanh(at @ W1 + b1) @ W2 + b2)))

    data = np.asarray(fit.model.data["x"])[shown] / 16
    rows = [part for half in np.split(shown, 2) for part in (data[half], decoded(z[half]))]
    figure = Figure(figsize=(4.6, 6.4), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=(across, 4))
    for axes, images, title in (
        (above, decoded(grid), "images over the latent plane, -2 to 2"),
        (below, np.concatenate(rows), "data, and below each row its reconstructions"),
    ):
        framed = np.pad(images.reshape(-1, across, 8, 8), ((0, 0), (0, 0), (1, 1), (1, 1)))
        tiles = framed.swapaxes(1, 2).reshape(-1, across * 10)
        axes.imshow(tiles, cmap="gray_r", vmin=0, vmax=1)
        axes.set_title(title, loc="left", fontsize=9.5)
        axes.set_axis_off()
    return figure


if __name__ == "__main__":
    main()
