"""Figures of units: names on all axes, units in order, nothing on top of something else."""

import io
import itertools

import numpy as np
import pytest
from matplotlib import pyplot

from avistan.questions.figures import caterpillar, shrinkage_plot
from avistan.questions.shrinkage import shrinkage


def draws(units):
    rng = np.random.default_rng(1)
    return rng.normal(size=(200, units)) + rng.normal(0, 2, units)


@pytest.mark.parametrize("units", [2, 12, 40, 41, 3000])
def test_a_caterpillar_has_its_units_in_order(units):
    before = dict(pyplot.rcParams)
    figure = caterpillar("z[.,2]", "N", draws(units))
    (axes,) = figure.axes
    figure.draw_without_rendering()
    assert "z[.,2]" in axes.get_xlabel() + axes.get_ylabel()
    assert "units of N" in axes.get_xlabel() or axes.get_ylabel() == "unit of N"
    order = np.argsort(draws(units).mean(axis=0), kind="stable") + 1
    if units <= 40:
        labels = axes.get_yticklabels()
        assert [label.get_text() for label in labels] == [str(unit) for unit in order]
        boxes = [label.get_window_extent() for label in labels]
        assert not any(one.overlaps(other) for one, other in itertools.pairwise(boxes))
    else:
        heights = axes.lines[0].get_ydata()
        assert (np.diff(heights) >= 0).all()
    assert dict(pyplot.rcParams) == before


def test_a_shrinkage_plot_has_a_point_for_each_unit():
    found = shrinkage("z", draws(30))
    figure = shrinkage_plot(found, "N")
    (axes,) = figure.axes
    points = next(line for line in axes.lines if len(line.get_xdata()) == 30)
    np.testing.assert_allclose(points.get_ydata(), found.table["sd_ratio"])
    assert axes.get_xlabel() == "posterior mean of z, units of N"
    assert axes.get_ylabel()
    assert f"{100 * found.eta_shrinkage:.0f} %" in axes.get_title(loc="left")
    content = io.BytesIO()
    figure.savefig(content)
    assert content.getvalue().startswith(b"\x89PNG")
