"""Both backends, and a small model in a slot."""

import pytest

from avistan.density.slots import register
from density_models import linear, require_native, use_backend


@pytest.fixture(params=["native", "callback"])
def backend(request):
    if request.param == "native":
        require_native()
    with use_backend(request.param):
        yield request.param


@pytest.fixture(scope="module")
def model():
    return linear(11)


@pytest.fixture
def slot(model):
    with register(model) as slot:
        yield slot
