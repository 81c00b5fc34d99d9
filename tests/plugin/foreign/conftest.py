"""Files of a real CmdStan, with the model that they are of."""

import pytest

from cmdstan_files import write_all
from prophet_series import bind_prophet, flat


@pytest.fixture(scope="package")
def files(require, tmp_path_factory):
    prophet = require("prophet")
    folder = tmp_path_factory.mktemp("csv")
    with bind_prophet(prophet, flat()) as model:
        write_all(prophet, model, folder)
        yield folder, model
