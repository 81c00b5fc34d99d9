"""Series for the program in the package `prophet`, which comes with its CmdStan 2.37 executable."""

from pathlib import Path

import numpy as np

from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.stan_data import read_data
from stan_adapters.language.program import Program


def folder(prophet) -> Path:
    return Path(prophet.__file__).parent / "stan_model"


def executable(prophet) -> Path:
    return folder(prophet) / "prophet_model.bin"


def bind_prophet(prophet, data: dict, change: tuple[str, str] = ("", "")) -> BoundModel:
    """Prophet's own program, or one with a piece of its text changed."""
    source = (folder(prophet) / "prophet.stan").read_text()
    assert change[0] in source
    program = Program.from_code(source.replace(*change, 1), name="prophet")
    return BoundModel(program, read_data(program, data))


def trend() -> dict:
    """60 days with a linear trend, 5 changepoints and a week of 3 harmonics: 14 correlated parameters."""
    rng = np.random.default_rng(1)
    time = np.linspace(0, 1, 60)
    week = 2 * np.pi * np.arange(60)[:, None] / 7 * np.arange(1, 4)
    x = np.hstack([np.sin(week), np.cos(week)])
    return {
        "T": 60,
        "K": 6,
        "t": time,
        "cap": np.ones(60),
        "y": 0.3 + 0.5 * time + x @ rng.normal(0, 0.1, 6) + rng.normal(0, 0.1, 60),
        "S": 5,
        "t_change": np.linspace(0, 0.8, 6)[1:],
        "X": x,
        "sigmas": np.full(6, 10.0),
        "tau": 0.05,
        "trend_indicator": 0,
        "s_a": np.ones(6),
        "s_m": np.zeros(6),
    }


def flat() -> dict:
    """20 weeks about a level, no changepoint: 5 parameters, independent and normal but for the log scale's skewness."""
    rng = np.random.default_rng(3)
    week = 2 * np.pi * np.arange(140)[:, None] / 7
    x = np.hstack([np.sin(week), np.cos(week)])
    return trend() | {
        "T": 140,
        "K": 2,
        "t": np.linspace(0, 1, 140),
        "cap": np.ones(140),
        "y": 0.3 + 0.2 * x[:, 0] + rng.normal(0, 0.5, 140),
        "S": 0,
        "t_change": [],
        "X": x,
        "sigmas": np.ones(2),
        "trend_indicator": 2,
        "s_a": np.ones(2),
        "s_m": np.zeros(2),
    }
