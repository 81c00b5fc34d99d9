"""cmdstanpy's fits give the draws that their files give."""

import cmdstanpy
import numpy as np
import pytest

from avistan.comparison.competitors import check_reference
from avistan.comparison.references import reference_from
from avistan.runtime.errors import CompetitorError


@pytest.mark.parametrize("name", ["nuts_1", "warm", "advi", "pathfinder", "laplace"])
def test_a_fit_and_its_file_are_the_same_reference(files, name):
    folder, model = files
    fit = cmdstanpy.from_csv(str(folder / f"{name}.csv"))
    check_reference(fit)
    mine, theirs = reference_from(fit, model), reference_from(folder / f"{name}.csv", model)
    np.testing.assert_allclose(mine.theta, theirs.theta, rtol=1e-13)
    assert (mine.divergences, mine.doubt) == (theirs.divergences, theirs.doubt)


def test_a_point_is_no_posterior(files):
    with pytest.raises(CompetitorError, match="a CmdStanMLE, which has no draws"):
        reference_from(cmdstanpy.from_csv(str(files[0] / "optimum.csv")), files[1])
