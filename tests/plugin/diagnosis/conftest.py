"""A fit that several checks are made of."""

import pytest

from programs import bundled, simulator


@pytest.fixture(scope="session")
def linear_data():
    return simulator("linear")(300)


@pytest.fixture(scope="session")
def linear(linear_data):
    """Mean-field globals, whose sd is less than half of the right one."""
    return bundled("linear", linear_data).fit(method="avi:polynomial(1)", seed=1, steps=2000)
