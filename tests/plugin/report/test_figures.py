"""Pictures of a comparison: what is drawn, not how it looks."""

import re
import struct
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

import avistan as avi
from avistan.comparison.elbo_curves import smooth
from avistan.comparison.results import Comparison
from avistan.comparison.rows import Row
from avistan.comparison.unit_agreement import agreements, pairs
from avistan.report import figures as plots
from avistan.report.intervals import intervals
from avistan.report.svg import VARIABLES, inline_svg
from avistan.runtime.entries import entry_label

SCHOOLS = avi.models_root() / "eight_schools"


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    model = avi.Model(SCHOOLS / "eight_schools.stan", data=SCHOOLS / "data.json")
    return model.compare(
        ("fvi", "constant"),
        reference="nuts",
        reference_options={"warmup": 200, "draws": 100},
        steps=80,
        elbo_draws=200,
    )


def with_trace(comparison: Comparison, elbo: np.ndarray) -> Comparison:
    """The comparison with the first method's ELBO trace exchanged."""
    row = comparison.rows[0]
    return replace(
        comparison, rows=(replace(row, curve=replace(row.curve, elbo=smooth(elbo))), *comparison.rows[1:])
    )


def curves(figure: Figure) -> list:
    """Lines of the upper panel, one for each method."""
    return [line for line in figure.axes[0].lines if len(line.get_xdata()) > 2]


def test_a_trace_against_steps_has_one_point_for_each_step(comparison):
    lines = curves(plots.elbo_trace(comparison))
    assert len(lines) == 2
    for line in lines:
        np.testing.assert_array_equal(line.get_xdata(), np.arange(1, 81))


def test_a_trace_against_seconds_ends_with_the_training_time_of_its_method(comparison):
    lines = curves(plots.elbo_trace(comparison, against="seconds"))
    for line, row in zip(lines, comparison.rows, strict=True):
        assert line.get_xdata()[-1] == pytest.approx(row.fit.timing.train)
        assert np.all(np.diff(line.get_xdata()) >= 0)


def test_axes_are_labelled_with_their_units(comparison):
    steps, seconds = plots.elbo_trace(comparison), plots.elbo_trace(comparison, against="seconds")
    assert steps.axes[0].get_title("left") == "ELBO, nats"
    assert steps.axes[-1].get_xlabel() == "step"
    assert "seconds" in seconds.axes[-1].get_xlabel()


def test_the_legend_names_every_method_with_its_final_elbo(comparison):
    texts = [text.get_text() for text in plots.elbo_trace(comparison).legends[0].get_texts()]
    for row in comparison.rows:
        assert any(text.startswith(f"{row.method}: {row.elbo:.2f} ±") for text in texts)


def test_a_wild_start_does_not_hide_where_the_methods_end(comparison):
    wild = comparison.rows[0].fit.trace.elbo.copy()
    wild[0] = -1e12
    low, high = plots.elbo_trace(with_trace(comparison, wild)).axes[0].get_ylim()
    ends = [row.fit.elbo for row in comparison.rows]
    assert low < min(ends) <= max(ends) < high
    assert high - low < 100


def test_a_method_that_ends_far_below_gets_a_second_panel_near_the_best(comparison):
    row = comparison.rows[0]
    curve = replace(row.curve, elbo=row.curve.elbo - 1000)
    rows = (replace(row, curve=curve, elbo=row.elbo - 1000), *comparison.rows[1:])
    figure = plots.elbo_trace(replace(comparison, rows=rows))
    best = comparison.rows[1].fit.elbo
    upper, lower = (axes.get_ylim() for axes in figure.axes)
    assert upper[0] < best - 990
    assert best - 50 < lower[0] < best < lower[1]


def test_steps_whose_draws_were_all_rejected_leave_no_hole_wider_than_themselves(comparison):
    gaps = comparison.rows[0].fit.trace.elbo.copy()
    gaps[10:13] = np.nan
    line = curves(plots.elbo_trace(with_trace(comparison, gaps)))[0]
    assert np.isfinite(line.get_ydata()).all()
    nothing = plots.elbo_trace(with_trace(comparison, np.full(80, np.nan)))
    assert np.isfinite(nothing.axes[0].get_ylim()).all()


def test_smoothing_keeps_a_level_and_stays_within_the_data():
    np.testing.assert_allclose(smooth(np.full(300, -7.5)), -7.5)
    values = np.random.default_rng(1).normal(size=1000)
    smoothed = smooth(values)
    assert smoothed.shape == values.shape
    assert smoothed.std() < 0.5 * values.std()
    assert values.min() < smoothed.min() < smoothed.max() < values.max()


def test_noise_of_a_fraction_of_a_nat_is_not_blown_up(comparison):
    flat = with_trace(comparison, np.full(80, comparison.rows[0].elbo))
    only = replace(flat, rows=flat.rows[:1])
    low, high = plots.elbo_trace(only).axes[0].get_ylim()
    assert high - low >= 1


def test_the_forest_shows_quantiles_of_the_draws_on_the_programs_own_scale(comparison):
    figure = plots.forest(intervals(comparison, draws=500))
    panels = {axes.get_yticklabels()[0].get_text().partition("[")[0]: axes for axes in figure.axes}
    assert list(panels) == ["mu", "tau", "theta_raw"]
    fit = comparison.rows[0].fit
    tau = fit.posterior(500, resample="none")["posterior"]["tau"].to_numpy().ravel()
    bars = [line.get_xdata() for line in panels["tau"].lines if len(line.get_xdata()) == 2]
    assert len(bars) == 6  # two intervals each for the reference and two methods
    assert min(bar[0] for bar in bars) > 0
    for expected in (np.quantile(tau, (0.05, 0.95)), np.quantile(tau, (0.25, 0.75))):
        assert any(np.allclose(bar, expected) for bar in bars)


def test_the_forest_shows_the_reference_first_and_some_units_only(comparison):
    figure = plots.forest(intervals(comparison, draws=50, units=3))
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["nuts", "fvi", "constant"]
    units = [tick.get_text() for tick in figure.axes[-1].get_yticklabels()]
    assert units == ["theta_raw[1]", "theta_raw[5]", "theta_raw[8]"]


@pytest.mark.parametrize(
    ("shape", "flat", "label"),
    [((), 0, "x"), ((4,), 2, "x[3]"), ((2, 3), 5, "x[2,3]"), ((2, 3), 1, "x[1,2]")],
)
def test_labels_count_from_one_with_the_last_index_fastest(shape, flat, label):
    assert entry_label("x", shape, flat) == label


def test_a_method_keeps_its_colour_in_every_picture_even_where_others_are_missing(comparison):
    failed = Row(method="avi", outcome="failed", reason="why")
    shifted = replace(comparison, rows=(failed, *comparison.rows))
    colour = plots.COLOURS[1]
    assert curves(plots.elbo_trace(shifted))[0].get_color() == colour
    assert plots.forest(intervals(shifted, draws=20)).axes[0].lines[3].get_color() == colour
    assert plots.khats(shifted).axes[0].lines[1].get_color() == colour


def test_latents_that_agree_lie_on_the_diagonal(comparison):
    (one, _), *_ = pairs(comparison)
    means, sds = plots.latents(agreements(comparison, one, one), one, one).axes
    for axes, values in ((means, one.mean), (sds, one.sd)):
        diagonal, points = axes.lines
        assert axes.get_xlim() == axes.get_ylim() == tuple(diagonal.get_xdata())
        np.testing.assert_array_equal(points.get_xdata(), points.get_ydata())
        assert set(points.get_ydata()) == set(values[comparison.level.index[:, 0]])
    assert means.get_xlabel() == means.get_ylabel() == one.label


def test_k_hats_are_written_and_end_where_they_are_unless_far_beyond_the_limit(comparison):
    axes = plots.khats(comparison).axes[0]
    texts = [text.get_text() for text in axes.texts]
    assert texts[0] == "0.7"
    assert axes.lines[0].get_xdata()[0] == 0.7
    for row, text in zip(comparison.rows, texts[1:], strict=True):
        assert text == f"{row.method}: {row.khat:.2f}"
    ends = [line.get_xdata()[0] for line in axes.lines[2::2]]
    assert ends == [min(row.khat, 3.15) for row in comparison.rows]


def test_pictures_do_not_depend_on_the_users_settings(comparison):
    figure = plots.khats(comparison)
    plain = inline_svg(figure, "k", "title", "words")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "text.usetex": False}):
        again = inline_svg(plots.khats(comparison), "k", "title", "words")
    assert again == plain


def test_svg_has_short_numbers_the_pages_colours_and_words_as_text():
    figure = Figure(figsize=(2, 1))
    axes = figure.subplots()
    for number, colour in enumerate(VARIABLES):
        axes.plot((0, 1), (number, number + 1 / 3), "o-", color=colour)
    axes.set_title("a < b & c")
    written = inline_svg(figure, "name", 'the "title"', "<words>")
    for variable in VARIABLES.values():
        assert f"stroke:var({variable})" in written
    assert "a &lt; b &amp; c</text>" in written
    assert (
        '<title id="name-title">the "title"</title><desc id="name-description">&lt;words&gt;</desc>'
        in written
    )
    assert 'role="img" aria-labelledby="name-title name-description"' in written
    assert not re.findall(r"\d\.\d{3}", written)
    assert 'id="name-' in written
    assert "font-family" not in written


def test_points_at_the_same_place_are_drawn_once():
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([1, 1, 1, 2], [1, 1, 1, 2], "o")
    same = inline_svg(figure, "same", "t", "d").count("<use")
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([1, 1.3, 1.6, 2], [1, 1.3, 1.6, 2], "o")
    assert inline_svg(figure, "same", "t", "d").count("<use") == same + 2


def test_a_comparison_without_fits_still_gives_figures(comparison):
    failed = replace(comparison, rows=(Row(method="avi", outcome="failed", reason="why"),))
    for figure in (
        plots.elbo_trace(failed),
        plots.forest(replace(failed, reference=None)),
        plots.khats(failed),
    ):
        assert any(text.get_text().startswith("no ") for text in figure.texts)


def test_saved_pictures_are_png_at_150_dots_per_inch(comparison, tmp_path):
    plots.save(plots.elbo_trace(comparison), tmp_path / "x.png")
    content = (tmp_path / "x.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", content[16:24])
    assert (width, height) == (690, 555)
