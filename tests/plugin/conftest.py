"""Bound models that several test modules share."""

import runpy
from collections.abc import Iterator

import pytest

import avistan as avi
from avistan._bundled import models_root
from programs import REJECTS, bind, bundled
from stan_adapters.binding import BoundModel


@pytest.fixture(scope="session")
def linear_answers():
    """The closed forms of the linear example, by name."""
    return runpy.run_path(str(models_root() / "linear" / "closed_form.py"))


@pytest.fixture(scope="session")
def lsat() -> avi.Model:
    return bundled("lsat_2pl")


@pytest.fixture(scope="session")
def eight_schools() -> avi.Model:
    return bundled("eight_schools")


@pytest.fixture
def rejecting() -> Iterator[BoundModel]:
    """A model that rejects any point with a latent above the limit."""
    with bind(REJECTS, {"N": 6, "y": [0.1, -0.4, 0.3, 0.0, -0.2, 0.5], "limit": 1.0}) as model:
        yield model
