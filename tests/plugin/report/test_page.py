"""The report: sentences that follow from numbers, and a page that reads well wherever it is opened."""

import re
from dataclasses import replace

import numpy as np
import pytest

import avistan as avi
from avistan.comparison.elbo_curves import Reached
from avistan.comparison.results import Comparison
from avistan.comparison.rows import Accuracy, Row
from avistan.comparison.unit_agreement import agreements, pairs
from avistan.objective.elbo import Evaluation
from avistan.report import page as report
from avistan.report.intervals import check_variables, intervals
from avistan.report.sentences import findings, headline
from avistan.report.write import REPORT, write_report
from avistan.runtime.errors import FitError
from avistan.runtime.text import DASH, MINUS, count, fixed, plus_minus, small, typeset
from browser import find_chromium, open_page
from programs import bundled
from stan_adapters.structure.structure import Verdict


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    """Everything that a report can hold: a failed method, several seeds, a reference, one factor for all."""
    return bundled("eight_schools").compare(
        ("avi:data(nope)", "avi", "fvi", "constant"),
        reference="nuts",
        reference_options={"warmup": 200, "draws": 100},
        repeats=2,
        steps=80,
        elbo_draws=200,
    )


@pytest.fixture(scope="module")
def page(comparison) -> str:
    return report.render(comparison)


def with_row(comparison: Comparison, method: str, **changes) -> Comparison:
    rows = tuple(replace(row, **changes) if row.method == method else row for row in comparison.rows)
    return replace(comparison, rows=rows)


def with_verdict(comparison: Comparison, verdict: Verdict) -> Comparison:
    return replace(comparison, structure=replace(comparison.structure, verdict=verdict))


def said(comparison: Comparison, about: str) -> str:
    return " ".join(finding.text for finding in findings(comparison) if finding.about == about)


# ---- Words -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (fixed(-1569.456, 2), f"{MINUS}1569.46"),
        (fixed(-0.001, 2), "0.00"),
        (fixed(12345.6, 1), "12\N{NARROW NO-BREAK SPACE}345.6"),
        (fixed(None, 2), DASH),
        (fixed(float("nan"), 2), DASH),
        (count(4000), "4000"),
        (count(None), DASH),
        (plus_minus(0.31, 0.12), "0.3 ± 0.1"),
        (plus_minus(-62.3164, 0.031), f"{MINUS}62.32 ± 0.03"),
        (plus_minus(1144.4, 12.0), "1144 ± 12"),
        (plus_minus(3.0, None), "3.00"),
        (small(0.0), "0"),
        (small(6.54e-16), f"6.5e{MINUS}16"),
    ],
)
def test_numbers_have_as_many_decimals_as_their_errors_leave(written, expected):
    assert written == expected


def test_prose_is_escaped_before_it_is_set():
    assert (
        typeset("<b>F-VI's</b>")
        == '&lt;b&gt;<span class="together">F-VI</span>\N{RIGHT SINGLE QUOTATION MARK}s&lt;/b&gt;'
    )
    assert typeset("no entry 'y' here") == "no entry &#39;y&#39; here"


@pytest.mark.parametrize("verdict", list(Verdict))
def test_the_headline_is_the_verdict(comparison, verdict):
    words = {"closable": "can be lossless", "not-closable": "can't be", "nothing-to-amortize": "nothing to"}
    assert words[verdict] in headline(with_verdict(comparison, verdict).structure)


def test_the_first_sentence_is_the_structures_own(comparison):
    assert said(comparison, "Structure") == comparison.structure.reason


def test_a_closed_gap_is_told_with_its_error_and_both_sizes(comparison):
    text = said(with_row(comparison, "avi", gap_to_fvi=0.31, gap_se=0.12), "Gap")
    assert "A-VI came within 0.3 ± 0.1 nats of F-VI" in text
    assert "variational parameters against 20." in text
    assert "did not" not in text


def test_an_open_gap_is_the_functions_where_the_structure_allows_closing_it(comparison):
    open_gap = with_row(comparison, "avi", gap_to_fvi=12.0, gap_se=0.2)
    assert "A-VI ended 12.0 ± 0.2 nats short of F-VI." in said(open_gap, "Gap")
    assert "Some function closes such a gap; this one" in said(open_gap, "Gap")
    coupled = said(with_verdict(open_gap, Verdict.NOT_CLOSABLE), "Gap")
    assert "Some function closes" not in coupled
    assert "coupled" in coupled


def test_a_method_above_f_vi_shows_that_f_vi_was_not_done(comparison):
    text = said(with_row(comparison, "avi", gap_to_fvi=-226.0, gap_se=2.0), "Gap")
    assert "226 ± 2 nats above F-VI" in text
    assert "F-VI was still at least that far from its own optimum after the same 80 steps" in text


def test_a_gap_within_its_noise_is_not_called_closed(comparison):
    text = said(with_row(comparison, "avi", gap_to_fvi=2.0, gap_se=3.0), "Gap")
    assert "can't be told from zero: 2 ± 3 nats" in text


def test_without_f_vi_no_gap_is_claimed(comparison):
    alone = replace(comparison, rows=tuple(row for row in comparison.rows if row.method != "fvi"))
    assert "was not measured" in said(alone, "Gap")


@pytest.mark.parametrize(
    ("gap", "words"), [(95.0, "95.0 ± 0.1 nats short of F-VI: the units differ"), (0.2, "little")]
)
def test_the_constant_factor_tells_whether_the_units_differ(comparison, gap, words):
    assert words in said(with_row(comparison, "constant", gap_to_fvi=gap, gap_se=0.1), "One factor")


def accuracy(*, error: float, ratio: float, globals_ratio: float) -> Accuracy:
    return Accuracy(
        mean_error=error,
        sd_ratio=ratio,
        mean_error_globals=error,
        sd_ratio_globals=globals_ratio,
        mean_error_locals=error,
        sd_ratio_locals=ratio,
    )


def test_understated_uncertainty_is_told_and_traced_to_the_factorization(comparison):
    both = accuracy(error=0.02, ratio=1.0, globals_ratio=0.62)
    told = said(with_row(with_row(comparison, "avi", accuracy=both), "fvi", accuracy=both), "Accuracy")
    assert (
        "A-VI's sds are on average 0.62 times the reference's for the globals and 1.00 times for the latents"
        in told
    )
    assert "understates the uncertainty of the globals, as a factorized approximation does" in told
    assert "F-VI does the same (0.62): amortization is not the cause." in told
    better = accuracy(error=0.02, ratio=1.0, globals_ratio=0.95)
    told = said(with_row(with_row(comparison, "avi", accuracy=both), "fvi", accuracy=better), "Accuracy")
    assert "not the cause" not in told


def test_misplaced_and_wide_and_close_approximations_are_told_apart(comparison):
    def told(**values):
        return said(with_row(comparison, "avi", accuracy=accuracy(**values)), "Accuracy")

    assert "wrong place" in told(error=0.6, ratio=1.0, globals_ratio=1.0)
    assert "overstates the uncertainty of the latents" in told(error=0.02, ratio=1.3, globals_ratio=1.0)
    assert "that is close" in told(error=0.02, ratio=1.0, globals_ratio=1.0)


def test_a_doubtful_reference_is_named_and_a_missing_one_too(comparison):
    doubtful = replace(comparison, reference=replace(comparison.reference, max_rhat=1.3))
    assert "in doubt" in said(doubtful, "Accuracy")
    assert "not known" in said(replace(comparison, reference=None), "Accuracy")


def test_k_hats_are_judged_at_the_published_threshold(comparison):
    def row(name, khat):
        known = type("Known", (Evaluation,), {"khat": khat})
        return Row(method=name, outcome="done", evaluation=known(np.zeros(2)))

    rows = (row("a", 0.69), row("b", 1.4))
    text = said(replace(comparison, rows=rows), "Weights")
    assert "0.69 for a, at most 0.7: importance weights of all 10 parameters together are usable" in text
    assert "1.40 for b, above 0.7: importance weights of all 10 parameters together are not usable" in text


def test_speed_names_who_came_near_the_best_and_who_never_did(comparison):
    c = with_row(comparison, "avi", within_nat=Reached(812, 0.9))
    c = with_row(with_row(c, "fvi", within_nat=Reached(1, 0.0)), "constant", within_nat=None)
    assert said(c, "Speed") == (
        "Within 1 nat of the best ELBO of all came F-VI from the start and A-VI after 812 steps (0.90 s); "
        "the constant factor never did."
    )


def test_failures_and_advice_are_told_with_their_reasons(comparison):
    assert "avi:data(nope) failed: " in said(comparison, "Beware")
    assert "no data entry 'nope'" in said(comparison, "Beware")
    rising = with_row(comparison, "fvi", outcome="budget_spent", reason="The ELBO was still rising")
    assert "F-VI: The ELBO was still rising." in said(rising, "Beware")


def test_several_seeds_are_told_as_a_range(comparison):
    assert "Over 2 seeds, gaps to F-VI went from " in said(comparison, "Seeds")
    assert said(replace(comparison, seeds=(1,)), "Seeds") == ""


def test_no_sentence_says_converged(comparison, page):
    assert not any("converge" in finding.text.lower() for finding in findings(comparison))
    assert "converge" not in re.sub(r"<pre.*</pre>", "", page, flags=re.DOTALL).lower()


# ---- What is shown -----------------------------------------------------------------------------------------


def test_latents_agree_with_themselves_exactly(comparison):
    one, _ = pairs(comparison)[0]
    (latent,) = agreements(comparison, one, one)
    assert latent.label == "theta_raw"
    assert latent.error.shape == (8,)
    assert np.all(latent.error == 0)
    assert np.all(latent.ratio == 1)


def test_latents_are_set_against_f_vi_and_the_reference(comparison):
    shown = [(of.label, against.label) for of, against in pairs(comparison)]
    assert shown == [("avi", "fvi"), ("avi", "nuts")]
    without = replace(
        comparison, rows=tuple(row for row in comparison.rows if row.method in ("fvi", "constant"))
    )
    assert [(of.label, against.label) for of, against in pairs(without)] == [("fvi", "nuts")]
    assert pairs(replace(without, reference=None)) == []


def test_of_many_units_some_are_drawn_and_all_are_counted(comparison):
    one, other = pairs(comparison)[0]
    (latent,) = agreements(comparison, one, other, points=3)
    assert latent.means.shape == (2, 3)
    assert latent.error.shape == (8,)


def test_intervals_of_chosen_variables_are_quantiles_of_any_block(comparison):
    found = intervals(comparison, variables=["theta[2]", "theta[1]", "tau"], draws=400)
    theta, tau = found.panels
    assert theta.labels == ("theta[1]", "theta[2]")
    assert [name for name, _ in found.samples] == ["nuts", "avi", "fvi", "constant"]
    draws = comparison["avi"].fit.posterior(400, resample="none")["posterior"]
    np.testing.assert_allclose(tau.quantiles[0, 1], np.quantile(draws["tau"], (0.05, 0.25, 0.5, 0.75, 0.95)))
    np.testing.assert_allclose(theta.quantiles[1, 1, 2], np.median(draws["theta"].values[0, :, 1]))


@pytest.mark.parametrize(
    ("variable", "helpful"),
    [
        ("thet", "Did you mean 'theta'"),
        ("theta[9]", "Sizes of theta: 8"),
        ("theta[0]", "Sizes of theta: 8"),
        ("mu[1]", "single number"),
        ("y", "It has mu, tau"),
        ("", "no variable ''"),
    ],
)
def test_a_variable_that_is_not_there_is_refused_before_anything_is_drawn(comparison, variable, helpful):
    with pytest.raises(FitError, match=re.escape(helpful)):
        check_variables(comparison.model, [variable])


def test_a_forest_of_very_many_parameters_stays_a_page_long():
    code = "parameters { vector[500] a; matrix[30, 40] b; real c; } model { target += -sum(a^2) - sum(b^2) - c^2; }"
    comparison = avi.Model(stan_code=code).compare(["avi:data(nothing)"])
    found = intervals(comparison, draws=20)
    assert sum(len(panel.labels) for panel in found.only(has_units=False).panels) <= 24
    assert {panel.name for panel in found.panels} >= {"c"}


# ---- The page ----------------------------------------------------------------------------------------------


def test_the_page_needs_nothing_else(page):
    assert set(re.findall(r'(?:href|src)="([^"#][^"]*)"', page)) == {"data:,"}
    assert "@import" not in page
    assert "<script" not in page
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", page))


def test_the_page_is_the_same_every_time_and_small(comparison, page):
    assert report.render(comparison) == page
    assert len(page.encode()) < 300_000


def test_ids_are_unique_and_every_reference_has_its_target(page):
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    targets = re.findall(r'(?:href="#|url\(#)([^")]+)', page)
    targets += [name for names in re.findall(r'aria-labelledby="([^"]+)"', page) for name in names.split()]
    assert set(targets) <= set(ids)


def test_pictures_take_the_pages_colours_and_fonts(page):
    pictures = re.findall(r'<svg [^>]*role="img".*?</svg>', page, flags=re.DOTALL)
    assert len(pictures) == 7
    for picture in pictures:
        assert "font-family" not in picture
        assert not re.findall(r"#[0-9a-f]{6}\b", picture)
        assert "<title" in picture
        assert "<desc" in picture


def test_failed_methods_are_in_the_table_with_their_reason(page):
    assert re.search(r"avi:data\(nope\)</th>\s*<td[^>]*>failed</td>", page)
    assert "no data entry &#39;nope&#39;" in page


def test_what_users_wrote_is_escaped(comparison):
    evil = "<script>alert('x')</script> & <b>"
    structure = replace(comparison.structure, program=evil, reason=evil)
    rows = (Row(method=evil, outcome="failed", reason=evil), *comparison.rows[1:])
    page = report.render(replace(comparison, structure=structure, rows=rows))
    assert "<script" not in page
    assert "<b>" not in page
    assert "&lt;script&gt;alert(" in page


def test_a_page_without_reference_repeats_and_units_leaves_them_out():
    flat = avi.Model(stan_code="parameters { real a; } model { a ~ std_normal(); }")
    comparison = flat.compare(["avi", "fvi"], steps=5, elbo_draws=100)
    page = report.render(comparison)
    assert "There is nothing to amortize here" in page
    assert "Local latents" not in page
    assert "Against " not in page
    assert "Over " not in page


def test_a_report_is_written_with_the_chosen_variables(comparison, tmp_path):
    write_report(comparison, tmp_path, draws=20, variables=["theta[3]"])
    assert {path.name for path in tmp_path.iterdir()} == set(REPORT)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "theta[3]" in page
    assert "Variables: theta" in page


# ---- In a browser ------------------------------------------------------------------------------------------

VIEWS = {
    "desktop light": {"width": 1280},
    "desktop dark": {"width": 1280, "scheme": "dark"},
    "tablet": {"width": 768},
    "phone light": {"width": 375},
    "phone dark": {"width": 375, "scheme": "dark"},
    "paper": {"width": 690, "medium": "print"},
    "paper of a dark desk": {"width": 690, "medium": "print", "scheme": "dark"},
}

TEXTS = """
function texts() {
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
  while (walker.nextNode()) {
    const node = walker.currentNode, parent = node.parentElement;
    if (!node.data.trim() || parent.closest('style, title, desc') || !parent.checkVisibility()) continue;
    const head = parent.closest('thead');
    if (head && getComputedStyle(head).position === 'absolute') continue;  // for screen readers only
    const range = document.createRange();
    range.selectNodeContents(node);
    found.push({node, parent, text: node.data.trim(), boxes: [...range.getClientRects()]});
  }
  return found;
}
"""

STICKING_OUT = """(() => {
  const wrong = [], window = document.documentElement.clientWidth;
  for (const {parent, text, boxes} of texts()) {
    if (parent.closest('pre')) continue;
    let frame = parent.closest('figure > svg');
    for (let e = parent; !frame; e = e.parentElement) if (getComputedStyle(e).display !== 'inline') frame = e;
    const outer = frame.getBoundingClientRect();
    for (const box of boxes) {
      const out = box.left < outer.left - 1 || box.right > outer.right + 1 || box.left < 0 || box.right > window
        || (parent.closest('figure > svg') && (box.top < outer.top - 1 || box.bottom > outer.bottom + 1));
      if (out) wrong.push(`${text}: ${box.left} to ${box.right} in ${outer.left} to ${outer.right}`);
    }
  }
  for (const e of document.querySelectorAll('body, body *')) {
    const style = getComputedStyle(e);
    if (!e.closest('pre, svg, thead') && style.display !== 'inline' && e.scrollWidth > e.clientWidth + 1)
      wrong.push(`${e.tagName} ${e.className}: ${e.scrollWidth} in ${e.clientWidth}`);
  }
  return wrong;
})()"""

OVERLAPPING = """(() => {
  const wrong = [];
  for (const svg of document.querySelectorAll('figure > svg')) {
    const labels = [...svg.querySelectorAll('text')].map(e => [e.textContent, e.getBoundingClientRect()]);
    labels.forEach(([one, a], i) => labels.slice(i + 1).forEach(([two, b]) => {
      const x = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const y = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (x > 1 && y > 0.3 * Math.min(a.height, b.height)) wrong.push(`${one} and ${two}`);
    }));
  }
  return wrong;
})()"""

FAINT = """(() => {
  const channels = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const colour = channels(getComputedStyle(e).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const wrong = {};
  for (const {parent, text} of texts()) {
    const style = getComputedStyle(parent);
    const [a, b] = [light(channels(parent.closest('svg') ? style.fill : style.color)), light(behind(parent))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) wrong[text] = contrast;
  }
  return wrong;
})()"""

TINY = """(() => texts().filter(({parent, boxes}) =>
  boxes.length && parseFloat(getComputedStyle(parent).fontSize) *
    (parent.closest('svg') ? parent.closest('svg').getBoundingClientRect().width
      / parent.closest('svg').viewBox.baseVal.width : 1) < 9).map(({text}) => text))()"""

UNNAMED = """[...document.querySelectorAll('img, svg')].filter(e => e.getAttribute('aria-hidden') !== 'true' && !(
  e.getAttribute('role') === 'img' && e.getAttribute('aria-labelledby').split(' ')
    .every(id => document.getElementById(id).textContent.trim()))).map(e => e.outerHTML.slice(0, 100))"""


BAD = {
    "a wide block": (STICKING_OUT, "<p style='width: 2000px'>much too wide a paragraph</p>"),
    "a long word": (STICKING_OUT, f"<p>{'w' * 400}</p>"),
    "a cell": (STICKING_OUT, f"<div style='width: 50px'><table><td>{'w' * 40}</table></div>"),
    "a label outside": (
        STICKING_OUT,
        "<figure><svg viewBox='0 0 9 9' width='90'><text x='8'>label</text></svg></figure>",
    ),
    "two labels": (
        OVERLAPPING,
        "<figure><svg width='90'><text y='20'>one</text><text y='22'>two</text></svg></figure>",
    ),
    "grey on grey": (FAINT, "<p style='color: #888; background: #999'>faint</p>"),
    "a grey label": (FAINT, "<svg><text y='20' fill='#aaaaaa'>faint</text></svg>"),
    "small print": (TINY, "<p style='font-size: 5px'>tiny</p>"),
    "no name": (UNNAMED, "<svg></svg>"),
}


@pytest.fixture(scope="module")
def address(comparison, tmp_path_factory) -> str:
    """A page with everything, and names as long as they get."""
    long = "avi:polynomial(3):window(a_covariate_with_a_long_name, -1, 0, 1):full"
    rows = tuple(replace(row, method=long) if row.method == "constant" else row for row in comparison.rows)
    structure = replace(
        comparison.structure, program="a_program_whose_name_is_longer_than_any_phone_is_wide_" * 2
    )
    place = tmp_path_factory.mktemp("page") / "report.html"
    place.write_text(report.render(replace(comparison, rows=rows, structure=structure)), encoding="utf-8")
    return place.as_uri()


@pytest.fixture(scope="module")
def browser():
    executable = find_chromium()
    if executable is None:
        pytest.skip("no Chromium or Chrome on the path to open the page in")
    with open_page(executable) as opened:
        yield opened


@pytest.mark.parametrize(("check", "body"), BAD.values(), ids=BAD)
def test_the_checks_find_what_they_look_for(browser, tmp_path, check, body):
    place = tmp_path / "bad.html"
    place.write_text(
        f"<!doctype html><meta charset=utf-8><meta name=viewport content='width=device-width'>{body}"
    )
    browser.show(place.as_uri(), width=375)
    browser.run(TEXTS)
    assert browser.run(check)


def test_requests_and_complaints_are_heard(browser, tmp_path):
    place = tmp_path / "bad.html"
    place.write_text(
        "<!doctype html><meta charset=utf-8><img src='gone.png'><script>console.error('oh')</script>"
    )
    browser.show(place.as_uri(), width=375)
    assert len(browser.requests) == 2
    assert any("oh" in complaint for complaint in browser.complaints)


@pytest.fixture(scope="module", params=VIEWS.values(), ids=VIEWS)
def view(request, browser, address):
    browser.show(address, **request.param)
    browser.run(f"{TEXTS} document.querySelectorAll('details').forEach(e => e.open = true)")
    return browser


def test_opening_the_page_asks_for_nothing_and_complains_of_nothing(view, address):
    assert view.requests == [address]
    assert view.complaints == []


def test_the_page_is_no_wider_than_its_window(view):
    assert view.run("document.documentElement.scrollWidth") <= view.width


def test_no_text_sticks_out_of_its_box(view):
    assert view.run(STICKING_OUT) == []


def test_no_labels_of_a_figure_overlap(view):
    assert view.run(OVERLAPPING) == []


def test_every_text_stands_out_from_what_is_behind_it(view):
    assert view.run(FAINT) == {}


def test_no_text_is_too_small_to_read(view):
    assert view.run("texts().length") > 200
    assert view.run(TINY) == []


def test_every_picture_has_a_name_and_a_description(view):
    assert view.run("document.querySelectorAll('figure > svg').length") == 7
    assert view.run(UNNAMED) == []


def test_tables_stay_tables_for_those_who_hear_them(view):
    assert view.run("document.querySelectorAll('table').length") == 6
    assert view.run("[...document.querySelectorAll('tbody th')].every(e => e.scope === 'row')")
    assert view.run("[...document.querySelectorAll('table')].every(e => e.caption.textContent.trim())")


def test_a_dark_desk_has_a_dark_page_and_paper_is_white(browser, address):
    background = "getComputedStyle(document.body).backgroundColor"
    for view, colour in (
        ("desktop light", "rgb(255, 255, 255)"),
        ("desktop dark", "rgb(20, 22, 26)"),
        ("paper of a dark desk", "rgb(255, 255, 255)"),
    ):
        browser.show(address, **VIEWS[view])
        assert browser.run(background) == colour


def test_the_page_prints(browser, address):
    browser.show(address, width=1280)
    printed = browser.pdf()
    assert printed.startswith(b"%PDF")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b(?!s)", printed)) <= 8


def test_what_is_handed_out_is_told_by_its_name_and_before_approximations(comparison):
    both = accuracy(error=0.02, ratio=1.0, globals_ratio=0.8)
    auto = replace(comparison["fvi"], method="auto", accuracy=both)
    told = said(replace(comparison, rows=(*comparison.rows, auto)), "Accuracy")
    assert "auto's sds are on average 0.80 times the reference's for the globals" in told
    assert "factorized" not in told  # its q may be, its draws are not
