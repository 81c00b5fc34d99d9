"""The pictures of the documentation: docs/families.md with its numbers, and the path of a fit in docs/architecture.md.

    python docs/pictures.py [--output docs/pictures] [--only default_fit]

Of families: small posteriors known exactly, with fitted families on top.

Each posterior is integrated in closed form or by quadrature, as is its evidence, so that the divergence
KL(q || p) = log evidence - ELBO is known in nats. Families are fitted by `Model.fit(method=..., seed=1)` with free
factors for every unit (F-VI): what is seen is the family, not a network.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy.ndimage import gaussian_filter
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm, poisson

from avistan.fit import Fit
from avistan.model import Model
from avistan.report.figures import COLOURS, INK, MUTED
from avistan.runtime.types import FloatArray, IntArray

FUNNEL = """
data { int J; vector[J] y; }
parameters { real s; vector[J] z; }
model {
  target += normal_lpdf(s | 0, 1.5);
  target += normal_lpdf(z | 0, exp(s));
  target += normal_lpdf(y | z, 1);
}
"""
SLOPES = """
data { int N; int J; array[N] int<lower=1, upper=J> g; vector[N] x; vector[N] y; }
parameters { real mu_a; real mu_b; vector[J] a; vector[J] b; }
model {
  target += normal_lpdf(mu_a | 0, 2);
  target += normal_lpdf(mu_b | 0, 2);
  target += normal_lpdf(a | mu_a, 0.5);
  target += normal_lpdf(b | mu_b, 0.3);
  target += normal_lpdf(y | a[g] + b[g] .* x, 0.5);
}
"""
COUNTS = """
data { int J; array[J] int<lower=0> y; }
parameters { real mu; vector[J] z; }
model {
  target += normal_lpdf(mu | 0, 1);
  target += normal_lpdf(z | mu, 1.5);
  target += poisson_log_lpmf(y | z);
}
"""

DIAGONAL, FULL = "fvi", "fvi:full:full-rank"
MEAN, SCALE, CURVED = "conditional", "conditional(mean+scale)", "conditional(curved):flow"
DRAWS = 400_000
INSIDE = (0.5, 0.9)  # probability within the contours
EXACT = ("#c9ced6", "#e6e9ed")  # fills within them
LIGHT = "#ffffff"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "pictures", help="folder")
    makers = {made.__name__: made for made in (default_fit, funnel, correlated_block, skewed_unit)}
    parser.add_argument("--only", choices=makers, nargs="*", default=list(makers), help="pictures")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    for name in options.only:
        makers[name]().savefig(options.output / f"{name}.png", dpi=110, facecolor=LIGHT)


# ---- one default fit, as docs/architecture.md tells it

PLACES = {
    "Stan program": (0, 3),
    "declarations": (1, 3),
    "data": (0, 2),
    "checked data": (1, 2),
    "bound model": (2, 2.5),
    "level,\nverdict": (3, 3),
    "quick fit": (3, 2),
    "unit inputs": (4, 2.5),
    "family": (4, 1),
    "trained family": (2.9, 1),
    "fit": (1.6, 1),
    "posterior": (0.3, 1),
}
ARROWS = (  # from, to, folders, place of the label
    (("Stan program",), "declarations", "language", (0.5, 3.13)),
    (("data",), "checked data", "data", (0.5, 2.13)),
    (("declarations", "checked data"), "bound model", "engine, bound", (1.35, 2.5)),
    (("bound model",), "level,\nverdict", "levels, structure", (2.2, 2.85)),
    (("bound model",), "quick fit", "start", (2.35, 2.17)),
    (("level,\nverdict", "quick fit"), "unit inputs", "units, start", (3.27, 2.5)),
    (("unit inputs",), "family", "fitting, family", (4.25, 1.75)),
    (("family",), "trained family", "objective, training", (3.47, 1.13)),
    (("trained family",), "fit", "fitting, objective", (2.15, 1.13)),
    (("fit",), "posterior", "correction, posterior", (0.95, 1.13)),
)


def default_fit() -> Figure:
    """Ten arrows from a program to a posterior, each with its folders."""
    figure = Figure(figsize=(11, 4.6), layout="constrained", facecolor=LIGHT)
    ax = figure.subplots()
    ax.set(xlim=(-0.4, 4.65), ylim=(0.7, 3.35))
    ax.axis("off")
    around = {"boxstyle": "round,pad=0.45", "facecolor": "#f2f4f7", "edgecolor": "#9aa3af"}
    boxes = {
        name: ax.text(*place, name, ha="center", va="center", fontsize=11, color=INK, bbox=around)
        for name, place in PLACES.items()
    }
    for number, (sources, target, folders, label) in enumerate(ARROWS, start=1):
        for source in sources:
            ends = {"patchA": boxes[source].get_bbox_patch(), "patchB": boxes[target].get_bbox_patch()}
            style = {"arrowstyle": "-|>", "color": "#6b7280", "shrinkA": 0, "shrinkB": 2} | ends
            ax.annotate("", xy=PLACES[target], xytext=PLACES[source], arrowprops=style)
        ax.text(*label, f"{number}  {folders}", ha="center", va="center", fontsize=9, color=COLOURS[0])
    return figure


# ---- the funnel: a scale and the latents that it scales


def funnel() -> Figure:
    """A latent against the log scale of all; exact by quadrature over the scale."""
    y = np.array([0.3, -0.8, 1.1, 0.1, -0.4, 0.7, -1.2, 0.5])
    s, z = np.linspace(-6, 2.5, 1701), np.linspace(-3, 3.4, 641)
    log_s = norm.logpdf(s, 0, 1.5) + norm.logpdf(y[:, None], 0, np.sqrt(1 + np.exp(2 * s))).sum(axis=0)
    evidence = logsumexp(log_s) + np.log(s[1] - s[0])
    p_s = np.exp(log_s - evidence)
    shrink = np.exp(2 * s) / (1 + np.exp(2 * s))
    exact = p_s[:, None] * norm.pdf(z, y[2] * shrink[:, None], np.sqrt(shrink)[:, None])
    model = Model(stan_code=FUNNEL, data={"J": y.size, "y": y})
    fits = fitted(model, (DIAGONAL, f"fvi:{MEAN}", f"fvi:{SCALE}", f"fvi:{CURVED}"))

    figure, axes = panels(4, 3.8)
    print_head("funnel", evidence, ("s", "z[3]"))
    print_line("exact", 0.0, moments_on_grid(s, z, exact))
    for ax, colour, (name, fit) in zip(axes, COLOURS, fits.items(), strict=False):
        theta = fit.unconstrained_draws(DRAWS)[0][:, [0, 3]]
        ax.contourf(s, z, exact.T, levels=levels(exact, s, z), colors=EXACT[::-1], extend="neither")
        draw_histogram(ax, theta, (s[0], s[-1]), (z[0], z[-1]), colour)
        divergence = evidence - fit.elbo
        print_line(name, divergence, moments_of(theta))
        ax.set_title(f"{name}\nKL {divergence:.2f} nats", fontsize=10, color=colour)
        ax.set_xlim(-4.5, 0.8)
        ax.set_ylim(-1.4, 1.7)
        ax.set_xlabel("s, log scale of all units")
    axes[0].set_ylabel("z, a unit's latent")
    legend(figure, {"exact": None, "fitted family": MUTED})
    return figure


# ---- a block of correlated latents, and globals that they follow


def correlated_block() -> Figure:
    """Intercept and slope of a group, and the slope against its mean over groups; exact because all is Gaussian."""
    rng = np.random.default_rng(5)
    groups = 6
    g = np.repeat(np.arange(groups), 3)
    x = np.tile([1.0, 2.0, 3.0], groups)
    y = rng.normal(rng.normal(1, 0.5, groups)[g] + rng.normal(0.5, 0.3, groups)[g] * x, 0.5).round(2)
    mean, cov, evidence = gaussian_posterior(g, x, y, groups)
    model = Model(stan_code=SLOPES, data={"N": g.size, "J": groups, "g": g + 1, "x": x, "y": y})
    fits = fitted(model, (DIAGONAL, FULL, f"{FULL}:{MEAN}"))

    figure, axes = panels(2, 4.4)
    block, across = [2, 2 + groups], [1, 2 + groups]
    names = (("intercept of a group", "slope of that group"), ("mean of all slopes", "slope of a group"))
    for ax, pair, (across_label, up_label), coordinates in zip(
        axes, (block, across), names, (("a[1]", "b[1]"), ("mu_b", "b[1]")), strict=True
    ):
        print_head("correlated block", evidence, coordinates)
        print_line("exact", 0.0, moments_from(mean[pair], cov[np.ix_(pair, pair)]))
        for size, fill in zip(INSIDE[::-1], EXACT[::-1], strict=True):
            ax.fill(*ellipse(mean[pair], cov[np.ix_(pair, pair)], size), color=fill, linewidth=0)
        for colour, style, (name, fit) in zip(COLOURS, ("-", "-", "--"), fits.items(), strict=False):
            theta = fit.unconstrained_draws(DRAWS)[0][:, pair]
            for size in INSIDE:
                outline = ellipse(theta.mean(axis=0), np.cov(theta.T), size)
                ax.plot(*outline, style, color=colour, linewidth=1.6)
            print_line(name, evidence - fit.elbo, moments_of(theta))
        ax.set_xlabel(across_label)
        ax.set_ylabel(up_label)
    axes[0].set_title("within a unit", fontsize=10, color=INK)
    axes[1].set_title("a unit and a global", fontsize=10, color=INK)
    legend(figure, {"exact": None, **dict(zip(fits, COLOURS, strict=False))})
    return figure


def gaussian_posterior(
    g: IntArray, x: FloatArray, y: FloatArray, groups: int
) -> tuple[FloatArray, FloatArray, float]:
    """Mean and covariance of (mu_a, mu_b, a, b) and the log evidence, by conditioning a joint Gaussian."""
    loading = np.zeros((2 + 2 * groups, 2 + 2 * groups))  # parameters from independent standard normals
    loading[0, 0] = loading[1, 1] = 2.0
    loading[2 : 2 + groups, 0] = loading[2 + groups :, 1] = 2.0
    loading[2:, 2:] = np.diag(np.repeat([0.5, 0.3], groups))
    prior = loading @ loading.T
    design = np.zeros((y.size, 2 + 2 * groups))
    design[np.arange(y.size), 2 + g] = 1.0
    design[np.arange(y.size), 2 + groups + g] = x
    of_data = design @ prior @ design.T + 0.25 * np.eye(y.size)
    gain = np.linalg.solve(of_data, design @ prior).T
    evidence = multivariate_normal.logpdf(y, np.zeros(y.size), of_data)
    return gain @ y, prior - gain @ design @ prior, float(evidence)


# ---- a unit whose latent is skewed


def skewed_unit() -> Figure:
    """Two latents' densities, of a unit that counted nothing and of one that counted much; exact by quadrature."""
    y = np.array([0, 0, 1, 3, 12, 2, 0, 5])
    mu, z = np.linspace(-3.5, 4, 601), np.linspace(-9, 7, 3201)
    step = z[1] - z[0]
    log_unit = norm.logpdf(z, mu[:, None], 1.5)[None] + poisson.logpmf(y[:, None], np.exp(z))[:, None]
    log_marginal = logsumexp(log_unit, axis=2) + np.log(step)  # (J, M)
    log_mu = norm.logpdf(mu) + log_marginal.sum(axis=0)
    evidence = logsumexp(log_mu) + np.log(mu[1] - mu[0])
    p_mu = np.exp(log_mu - logsumexp(log_mu))
    model = Model(stan_code=COUNTS, data={"J": y.size, "y": y})
    fits = fitted(model, (DIAGONAL, f"fvi:{SCALE}", f"fvi:{SCALE}:flow"))

    figure, axes = panels(2, 3.8)
    for ax, unit in zip(axes, (0, 4), strict=True):
        exact = np.einsum("m,mz->z", p_mu, np.exp(log_unit[unit] - log_marginal[unit][:, None]))
        print(f"\nskewed unit: z[{unit + 1}], which counted {y[unit]}; log evidence {evidence:.3f}")
        print(f"{'':<34}{'KL':>7}{'mean':>9}{'sd':>8}{'skewness':>10}")
        mean = np.sum(z * exact) * step
        sd = np.sqrt(np.sum((z - mean) ** 2 * exact) * step)
        skewness = np.sum(((z - mean) / sd) ** 3 * exact) * step
        print(f"{'exact':<34}{0:>7.2f}{mean:>9.3f}{sd:>8.3f}{skewness:>10.2f}")
        ax.fill_between(z, exact, color=EXACT[0], linewidth=0)
        for colour, style, (name, fit) in zip(COLOURS, ("-", "--", ":"), fits.items(), strict=False):
            draws = fit.unconstrained_draws(DRAWS)[0][:, 1 + unit]
            centred = (draws - draws.mean()) / draws.std()
            divergence = evidence - fit.elbo
            print(
                f"{name:<34}{divergence:>7.2f}{draws.mean():>9.3f}{draws.std():>8.3f}{np.mean(centred**3):>10.2f}"
            )
            height, edges = np.histogram(draws, bins=400, range=(z[0], z[-1]), density=True)
            middle = 0.5 * (edges[1:] + edges[:-1])
            ax.plot(middle, gaussian_filter(height, 3), style, color=colour, linewidth=1.8)
        shown = (mean - 4.2 * sd, mean + 3.2 * sd)
        ax.set_xlim(*shown)
        ax.set_ylim(bottom=0)
        ax.set_yticks([])
        ax.set_xlabel("z, log rate of a unit")
        ax.set_title(f"a unit that counted {y[unit]}", fontsize=10, color=INK)
    axes[0].set_ylabel("density")
    legend(figure, {"exact": None, **dict(zip(fits, COLOURS, strict=False))}, styles=("-", "--", ":"))
    return figure


# ---- numbers and shapes


def fitted(model: Model, names: Sequence[str]) -> Mapping[str, Fit]:
    """Fits by method name, the stopping rule deciding the steps."""
    return {name: model.fit(method=name, seed=1) for name in names}


def print_head(picture: str, evidence: float, coordinates: tuple[str, str]) -> None:
    first, second = coordinates
    print(f"\n{picture}: log evidence {evidence:.3f}")
    print(f"{'':<34}{'KL':>7}{f'sd {first}':>10}{f'sd {second}':>10}{'corr':>8}")


def print_line(name: str, divergence: float, moments: tuple[float, float, float]) -> None:
    print(f"{name:<34}{divergence:>7.2f}{moments[0]:>10.3f}{moments[1]:>10.3f}{moments[2]:>8.3f}")


def moments_from(mean: FloatArray, cov: FloatArray) -> tuple[float, float, float]:
    """Both sds and the correlation of two coordinates with covariance (2, 2)."""
    sd = np.sqrt(np.diag(cov))
    return float(sd[0]), float(sd[1]), float(cov[0, 1] / sd[0] / sd[1])


def moments_of(draws: FloatArray) -> tuple[float, float, float]:
    """The same from draws (S, 2)."""
    return moments_from(draws.mean(axis=0), np.cov(draws.T))


def moments_on_grid(x: FloatArray, y: FloatArray, density: FloatArray) -> tuple[float, float, float]:
    """The same of a density on a grid (X, Y)."""
    points = np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1).reshape(-1, 2)
    cov = np.cov(points.T, aweights=density.ravel(), bias=True)
    return moments_from(points.mean(axis=0), cov)


def levels(density: FloatArray, x: FloatArray, y: FloatArray) -> list[float]:
    """Heights of the density (X, Y) above which lie the probabilities `INSIDE`, lowest first, and the highest."""
    sorted_heights = np.sort(density.ravel())[::-1]
    inside = np.cumsum(sorted_heights) * (x[1] - x[0]) * (y[1] - y[0])
    found = [float(sorted_heights[np.searchsorted(inside, size)]) for size in INSIDE[::-1]]
    return [*found, float(sorted_heights[0])]


def draw_histogram(
    ax: Axes, draws: FloatArray, across: tuple[float, float], up: tuple[float, float], colour: str
) -> None:
    """Contours of the density of draws (S, 2), from a smoothed histogram."""
    height, x_edges, y_edges = np.histogram2d(*draws.T, bins=(340, 200), range=(across, up), density=True)
    x, y = (0.5 * (edges[1:] + edges[:-1]) for edges in (x_edges, y_edges))
    smooth = gaussian_filter(height, 3)
    ax.contour(x, y, smooth.T, levels=levels(smooth, x, y)[:-1], colors=colour, linewidths=1.6)


def ellipse(mean: FloatArray, cov: FloatArray, inside: float) -> FloatArray:
    """Outline (2, 200) that holds that probability of a Gaussian in the plane."""
    turn = np.linspace(0, 2 * np.pi, 200)
    radius = np.sqrt(-2 * np.log1p(-inside))
    return mean[:, None] + radius * np.linalg.cholesky(cov) @ np.stack([np.cos(turn), np.sin(turn)])


def panels(count: int, height: float) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(3.3 * count + 0.6, height), layout="constrained", facecolor=LIGHT)
    axes = list(figure.subplots(1, count, squeeze=False)[0])
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(colors=MUTED, labelsize=8)
    return figure, axes


def legend(
    figure: Figure, entries: Mapping[str, str | None], styles: Sequence[Any] = ("-", "-", "--")
) -> None:
    """Below the panels; an entry without colour is the exact posterior."""
    drawn = [colour for colour in entries.values() if colour is not None]
    lines = iter([Line2D([], [], color=c, linestyle=s) for c, s in zip(drawn, styles, strict=False)])
    handles = [Patch(color=EXACT[0]) if colour is None else next(lines) for colour in entries.values()]
    figure.legend(
        handles, list(entries), loc="outside lower center", ncols=len(entries), frameon=False, fontsize=9
    )


if __name__ == "__main__":
    main()
