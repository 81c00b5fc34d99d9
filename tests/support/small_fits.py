"""A fit that takes seconds, for tests of what is done with fits."""

import avistan as avi
from avistan.fit import Fit


def schools(**options) -> Fit:
    """Eight schools after 50 steps."""
    root = avi.models_root() / "eight_schools"
    model = avi.Model(stan_file=root / "eight_schools.stan", data=root / "data.json")
    return model.fit(**{"method": "avi", "steps": 50, "elbo_draws": 100, **options})
