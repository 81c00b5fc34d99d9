"""Programs in the layout that brms documents for its Stan code, written anew, each with a maker of its data.

`make(rng, groups, shift)` gives the data of some groups; predictors lie `shift` higher. `latents` belong to the units
of `level`. `centred` names the predictors that transformed data centre: the matrix, the centred one, and how many of
its first columns are left out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Data = dict[str, Any]
ROWS = 6  # for each group


@dataclass(frozen=True, kw_only=True)
class BrmsCase:
    name: str
    latents: tuple[str, ...]
    make: Callable[..., Data]
    level: str = "N_1"
    centred: tuple[tuple[str, str, int], ...] = (("X", "Xc", 1),)

    @property
    def stan_file(self) -> Path:
        return Path(__file__).with_name(f"{self.name}.stan")


CASES: dict[str, BrmsCase] = {}


def case(*latents: str, **options: Any) -> Callable[[Callable[..., Data]], Callable[..., Data]]:
    def register(make: Callable[..., Data]) -> Callable[..., Data]:
        def listed(rng: np.random.Generator, groups: int = 24, shift: float = 0.0) -> Data:
            data = make(rng, groups, shift)
            return {k: v.tolist() if isinstance(v, np.ndarray | np.generic) else v for k, v in data.items()}

        CASES[make.__name__] = BrmsCase(name=make.__name__, latents=latents, make=listed, **options)
        return make

    return register


def _common(rng: np.random.Generator, groups: int, shift: float) -> tuple[Data, np.ndarray]:
    """What every program has, and a linear predictor; rows are in no order."""
    g = rng.permutation(np.repeat(np.arange(groups), ROWS))
    X = np.column_stack([np.ones(g.size), rng.normal(shift, 1, (g.size, 2))])
    eta = 0.5 + X[:, 1:] @ [0.3, -0.2] + 0.6 * rng.normal(size=groups)[g]
    one = np.ones(g.size)
    data = {"N": g.size, "K": 3, "Kc": 2, "X": X, "N_1": groups, "M_1": 1, "J_1": g + 1, "Z_1_1": one}
    return data | {"prior_only": 0}, eta


def _normal(rng: np.random.Generator, eta: np.ndarray) -> np.ndarray:
    return rng.normal(eta, 0.7)


@case("z_1")
def one_grouping(rng: np.random.Generator, groups: int, shift: float) -> Data:
    data, eta = _common(rng, groups, shift)
    return data | {"M_1": 2, "Z_1_2": data["X"][:, 1], "NC_1": 1, "Y": _normal(rng, eta)}


@case("z_1")
def several_groupings(rng: np.random.Generator, groups: int, shift: float) -> Data:
    data, eta = _common(rng, groups, shift)
    second = rng.permutation(np.arange(data["N"]) % 9)
    eta = eta + rng.normal(0, 0.4, 9)[second]
    data |= {"N_2": 9, "M_2": 1, "J_2": second + 1, "Z_2_1": np.ones(data["N"])}
    return data | {"Y": rng.poisson(np.exp(np.minimum(eta, 4)))}


@case("z_1")
def monotonic(rng: np.random.Generator, groups: int, shift: float) -> Data:
    data, eta = _common(rng, groups, shift)
    steps = rng.integers(0, 4, data["N"])
    data |= {"Ksp": 1, "Imo": 1, "Jmo": [3], "Xmo_1": steps, "con_simo_1": [1.0, 1.0, 1.0]}
    return data | {"Y": _normal(rng, eta + 0.4 * steps)}


@case("Ymi_x", level="Nmi_x", centred=(("X_y", "Xc_y", 1), ("X_x", "Xc_x", 1)))
def missing(rng: np.random.Generator, groups: int, shift: float) -> Data:
    """As many missing values as groups; most rows have none."""
    common, eta = _common(rng, groups, shift)
    x, where = rng.normal(size=common["N"]), np.sort(rng.permutation(common["N"])[:groups])
    data = {"N": common["N"], "prior_only": 0, "Ksp_y": 1, "Nmi_x": groups, "Jmi_x": where + 1}
    for response in "yx":
        data |= {f"{name}_{response}": common[name] for name in ("N", "K", "Kc", "X")}
    data |= {"Y_y": _normal(rng, eta + 0.5 * x), "Y_x": x}
    data["Y_x"][where] = np.inf  # so that no missing value is taken for one that was seen
    return data


@case("z_1")
def smooth(rng: np.random.Generator, groups: int, shift: float) -> Data:
    data, eta = _common(rng, groups, shift)
    x = rng.uniform(-1, 1, data["N"])
    basis = np.column_stack([np.cos(k * np.pi * x) for k in range(1, 5)])
    data |= {"Ks": 1, "Xs": x[:, None], "nb_1": 1, "knots_1": [4], "Zs_1_1": basis}
    return data | {"Y": _normal(rng, eta + np.sin(2 * x))}


@case("z_1", centred=(("X", "Xc", 1), ("X_sigma", "Xc_sigma", 1)))
def distributional(rng: np.random.Generator, groups: int, shift: float) -> Data:
    data, eta = _common(rng, groups, shift)
    scales = np.column_stack([np.ones(data["N"]), rng.normal(shift, 1, data["N"])])
    data |= {"M_1": 2, "K_sigma": 2, "Kc_sigma": 1, "X_sigma": scales, "Z_1_sigma_2": np.ones(data["N"])}
    return data | {"Y": rng.normal(eta, np.exp(-0.5 + 0.2 * scales[:, 1]))}


@case("z_1")
def zero_inflated(rng: np.random.Generator, groups: int, shift: float) -> Data:
    data, eta = _common(rng, groups, shift)
    counts = rng.poisson(np.exp(np.minimum(eta, 4)))
    return data | {"Y": np.where(rng.uniform(size=data["N"]) < 0.2, 0, counts)}


@case("z_1", centred=(("X", "Xc", 0),))
def ordinal(rng: np.random.Generator, groups: int, shift: float) -> Data:
    data, eta = _common(rng, groups, shift)
    data |= {"X": data["X"][:, 1:], "K": 2, "nthres": 3, "disc": 1.0}
    return data | {"Y": 1 + np.searchsorted([-0.5, 0.5, 1.5], rng.logistic(eta))}


@case("z_1", centred=(("X_u", "Xc_u", 1), ("X_v", "Xc_v", 1)))
def multivariate(rng: np.random.Generator, groups: int, shift: float) -> Data:
    common, eta = _common(rng, groups, shift)
    data = {name: common[name] for name in ("N", "N_1", "prior_only")}
    for response in "uv":
        data |= {f"{name}_{response}": common[name] for name in ("N", "K", "Kc", "X", "J_1")}
        data[f"Y_{response}"] = _normal(rng, eta)
    ones = {"Z_1_u_1": common["Z_1_1"], "Z_1_v_2": common["Z_1_1"]}
    return data | ones | {"M_1": 2, "nresp": 2, "nrescor": 1}


@case("z_1")
def threads(rng: np.random.Generator, groups: int, shift: float) -> Data:
    data, eta = _common(rng, groups, shift)
    return data | {"grainsize": 20, "Y": _normal(rng, eta)}


@case("z_1")
def weights_offset(rng: np.random.Generator, groups: int, shift: float) -> Data:
    data, eta = _common(rng, groups, shift)
    offsets = rng.normal(0, 0.3, data["N"])
    data |= {"weights": rng.uniform(0.5, 2, data["N"]), "offsets": offsets}
    return data | {"Y": rng.poisson(np.exp(np.minimum(eta + offsets, 4)))}


@case("z_1")
def censored(rng: np.random.Generator, groups: int, shift: float) -> Data:
    data, eta = _common(rng, groups, shift)
    y = _normal(rng, eta)
    kind = rng.choice([-1, 0, 0, 0, 1, 2], size=data["N"])
    return data | {"Y": y, "cens": kind, "rcens": y + 0.5}
