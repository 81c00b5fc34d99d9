import json
import math

import numpy as np
import pytest

import _posteriors
from _posteriors import (
    Distance,
    Moments,
    component,
    distances,
    effective_copies,
    read_bank,
    read_references,
    worst,
)

TRUTH = Moments(mean=1.0, sd=2.0, width=6.58, mean_se=0.02, log_sd_se=0.007, log_width_se=0.009)


def moments(**changes):
    return Moments(
        **{"mean": 1.0, "sd": 2.0, "width": 6.58, "mean_se": 0.03, "log_sd_se": 0.011, "log_width_se": 0.015}
        | changes
    )


def test_moments_of_independent_normal_draws_have_the_errors_of_theory():
    draws = np.random.default_rng(1).normal(3.0, 2.0, (4, 2500))
    found = Moments.of(draws)
    assert abs(found.mean - 3.0) < 4 * found.mean_se
    assert found.mean_se == pytest.approx(2.0 / math.sqrt(10_000), rel=0.15)
    assert found.log_sd_se == pytest.approx(1 / math.sqrt(2 * 10_000), rel=0.15)
    assert found.log_width_se == pytest.approx(0.91 / math.sqrt(10_000), rel=0.4)


def test_copies_of_a_draw_count_once():
    few = np.random.default_rng(2).normal(size=50)
    draws = np.random.default_rng(3).choice(few, (1, 4000))
    assert effective_copies(draws.ravel()) == pytest.approx(50, rel=0.1)
    assert Moments.of(draws).mean_se == pytest.approx(draws.std() / math.sqrt(50), rel=0.1)


def test_tails_widen_the_error_of_a_log_sd():
    rng = np.random.default_rng(4)
    assert (
        Moments.of(rng.standard_t(5, (1, 4000))).log_sd_se
        > 1.3 * Moments.of(rng.normal(size=(1, 4000))).log_sd_se
    )


def test_a_constant_has_no_spread_and_no_error():
    assert Moments.of(np.ones((1, 10))) == Moments(1.0, 0.0, 0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("own", "bad"),
    [
        (moments(), False),
        (moments(mean=1.5), False),  # 0.25 sds, of which 0.054 may be Monte Carlo error
        (moments(mean=0.4), True),
        (moments(sd=2.0 * 1.2), False),
        (moments(sd=2.0 * 1.25), True),
        (moments(sd=2.0 * 0.8), True),
        (moments(sd=2.0 * 0.84), False),
        (moments(mean=0.4, mean_se=0.2), False),
        (moments(mean=math.nan), True),
        (moments(sd=0.0, width=0.0), True),
    ],
)
def test_a_global_is_bad_where_it_is_beyond_a_limit_by_more_than_its_error(own, bad):
    assert Distance.between("mu", own, TRUTH).bad is bad


def test_quantiles_decide_where_tails_leave_the_sd_open():
    heavy = moments(sd=4.0, log_sd_se=0.3)
    assert Distance.between("mu", heavy, TRUTH).log_ratio == pytest.approx(0.0)
    assert not Distance.between("mu", heavy, TRUTH).bad
    assert Distance.between("mu", moments(sd=4.0, width=10.0, log_sd_se=0.3), TRUTH).bad


def test_the_worst_variable_is_the_one_furthest_beyond_its_limit():
    own = {"a": moments(mean=1.7), "b": moments(sd=4.0), "c": moments()}
    truth = dict.fromkeys(["a", "b", "c", "not drawn"], TRUTH) | {"constant": Moments.of(np.ones((1, 10)))}
    found = distances(own | {"constant": moments()}, truth)
    assert [distance.variable for distance in found] == ["a", "b", "c"]
    assert worst(found).variable == "b"
    assert str(worst(found)) == "b: mean off by 0.00 sds, sd ratio 2.00"


@pytest.mark.parametrize(
    ("label", "expected"),
    [("mu", ("mu", ())), ("b[1]", ("b", (0,))), ("L_Omega[2,11]", ("L_Omega", (1, 10)))],
)
def test_a_label_names_a_place(label, expected):
    assert component(label) == expected


@pytest.mark.parametrize("label", ["b[1", "b[]", "b[1][2]", "2b", "b.1"])
def test_what_is_no_label_is_refused(label):
    with pytest.raises(ValueError, match=r"such as 'beta\[2,1\]'"):
        component(label)


def test_a_bank_is_folders_or_pairs_of_files(tmp_path):
    (tmp_path / "one").mkdir()
    for name in ("one/program.stan", "one/data.json", "two.stan", "two.json", "alone.stan", "README.md"):
        (tmp_path / name).write_text("")
    bank = read_bank(tmp_path)
    assert sorted(bank) == ["one", "two"]
    assert bank["one"].data == tmp_path / "one" / "data.json"
    (tmp_path / "one" / "more.json").write_text("")
    with pytest.raises(ValueError, match=r"one holds 1 \.stan and 2 \.json files"):
        read_bank(tmp_path)


def test_references_are_ten_thousand_draws_unless_they_say_otherwise(tmp_path):
    file = tmp_path / "references.json"
    numbers = [0.5, 2.0, -2.8, 0.5, 3.8]
    file.write_text(
        json.dumps(
            {"posteriors": {"p": {"mu": numbers, "tau": numbers}}, "errors": {"p": {"tau": [0.06, 0.022]}}}
        )
    )
    found = read_references(file)["p"]
    assert (found["mu"].mean_se, found["tau"].mean_se) == (0.02, 0.06)
    assert found["mu"].width == pytest.approx(6.6)
    assert found["mu"].log_sd_se == pytest.approx(1 / math.sqrt(2 * _posteriors.INDEPENDENT))


def test_a_reference_with_tails_that_its_quantiles_do_not_show_leaves_the_sd_open(tmp_path):
    file = tmp_path / "references.json"
    file.write_text(json.dumps({"posteriors": {"p": {"K_m": [2.54, 7.28, 0.086, 0.98, 8.685]}}}))
    truth = read_references(file)["p"]["K_m"]
    half = Moments(mean=2.5, sd=1.9, width=truth.width / 2, mean_se=0.03, log_sd_se=0.05, log_width_se=0.04)
    assert Distance.between("K_m", half, truth).log_ratio == pytest.approx(-math.log(2))
