"""A fit that takes seconds, for tests of what is done with fits."""

from typer.testing import CliRunner

import avistan as avi
from avistan.cli.app import app
from avistan.fit import Fit


def schools(**options) -> Fit:
    """Eight schools after 50 steps."""
    root = avi.models_root() / "eight_schools"
    model = avi.Model(stan_file=root / "eight_schools.stan", data=root / "data.json")
    return model.fit(**{"method": "avi", "steps": 50, "elbo_draws": 100, **options})


def saved_schools(folder, draws: int):
    """The same in a folder, with so many draws beside it."""
    schools().save(folder)
    assert CliRunner().invoke(app, ["posterior", str(folder), "--draws", str(draws)]).exit_code == 0
    return folder
