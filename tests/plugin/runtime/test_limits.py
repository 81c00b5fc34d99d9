"""Numbers that users give: what they may be, and what they would take of memory and time."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from avistan.family.method import check_methods, parse_method
from avistan.fitting import budget
from avistan.fitting.budget import check_method, check_sampling, check_training
from avistan.fitting.options import FitOptions, make_options
from avistan.posterior import budget as posterior_budget
from avistan.posterior.budget import check_draws
from avistan.runtime import limits
from avistan.runtime.errors import FitError, MethodError
from avistan.runtime.limits import (
    LIMITS,
    check_level,
    check_numbers,
    check_seed,
    number_between,
    whole_number,
)


@pytest.mark.parametrize("name", LIMITS)
def test_every_number_has_a_least_and_a_most_with_a_reason(name):
    limit = LIMITS[name]
    for value in (limit.least, np.int64(limit.most)):
        assert whole_number(name, value) == value
    for value in (limit.least - 1, -1, True, 1.5, "2", None, np.nan, [3], 10**5000 * -1):
        with pytest.raises(FitError, match=f"{name}=.*{limit.most} at most"):
            whole_number(name, value)
    for value in (limit.most + 1, 2**63, 10**5000):
        with pytest.raises(FitError, match=f"{name}=.*: {limit.most} is the most, as {limit.why}"):
            whole_number(name, value)


@pytest.mark.parametrize("name", ["steps", "draws_per_step", "num_references", "max_rank", "elbo_draws"])
def test_every_option_of_a_fit_refuses_what_is_out_of_range_by_name(name):
    for value in (0, -1, 2**63):
        with pytest.raises(FitError, match=f"{name}="):
            make_options({name: value})


def test_seeds_levels_and_probabilities():
    assert check_seed(np.uint32(5)) == 5
    for seed in (-1, 2**32, 1.0, "1", None, True):
        with pytest.raises(FitError, match=r"seed=.*from 0 to 4294967295"):
            check_seed(seed)
    for level in ("", "  ", 3, ["J"]):
        with pytest.raises(FitError, match="level="):
            check_level(level)
    for value in (0, 1, float("nan"), "0.5", None):
        with pytest.raises(FitError, match=r"between 0 and 1, such as 0\.99"):
            number_between("probability", value, 0, 1, 0.99)
    check_numbers(steps=None, chains=3, learning_rate=0.5)


def test_a_learning_rate_has_a_most_with_a_reason():
    check_numbers(learning_rate=100.0)
    for rate in (100.1, 1e300, np.inf):
        with pytest.raises(FitError, match=r"learning_rate=.*100 is|positive number"):
            check_numbers(learning_rate=rate)
    with pytest.raises(FitError, match=r"learning_rate=1e\+300: 100 is the most, as a step .* such as 0\.02"):
        make_options({"learning_rate": 1e300})


def test_what_the_memory_does_not_hold_is_refused_with_what_it_would_take(eight_schools, monkeypatch):
    monkeypatch.setattr(limits, "available_memory", lambda: 2**21)
    model = eight_schools.bound
    structure = eight_schools.inspect()
    too_much = {
        "draws_per_step=10000 of 10 parameters would take 3.1 MiB": lambda: check_training(
            model, FitOptions(draws_per_step=10_000)
        ),
        "steps=1000000 would take 15 MiB": lambda: check_training(model, FitOptions(steps=10**6)),
        "elbo_draws=1000000 would take 23 MiB": lambda: check_training(model, FitOptions(elbo_draws=10**6)),
        "draws=100000 of 2 chains would take": lambda: check_draws(model, 10**5, chains=2),
        "A reference of 4 chains with warmup=1000 and draws=10000 would take": lambda: check_sampling(
            model, draws=10_000
        ),
        "A network of width 1000": lambda: check_method(
            model, structure.level, parse_method("avi:mlp(1000)"), FitOptions()
        ),
        "num_references=4000 of 8 units would take": lambda: check_method(
            model, structure.level, parse_method("avi"), FitOptions(num_references=4000)
        ),
    }
    for words, ask in too_much.items():
        with pytest.raises(FitError, match=rf"{words}.*of memory at least, and 2.0 MiB are left. Give|Leave"):
            ask()
    check_training(model, FitOptions())
    check_method(model, structure.level, parse_method("avi"), FitOptions())
    assert check_draws(model, 100) == 100


def test_what_would_take_years_is_refused_with_how_long(eight_schools, monkeypatch):
    for each in (budget, posterior_budget):
        monkeypatch.setattr(each, "seconds_of_gradients", lambda model, count: 10.0 * count)
    model = eight_schools.bound
    with pytest.raises(
        FitError, match=r"steps=1000000, draws_per_step=8 and chains=1 would take 2\.54 years at least"
    ):
        check_training(model, FitOptions(steps=10**6))
    with pytest.raises(FitError, match="draws=500000 would take 58 days at least"):
        check_draws(model, 500_000)
    with pytest.raises(FitError, match=r"A reference of 4 chains .* would take 51 days"):
        check_sampling(model, warmup=100_000, draws=10_000)


def test_seconds_of_gradients_are_measured_where_they_matter(eight_schools, monkeypatch):
    clock = itertools.count(0, 3)  # a batch of points takes three seconds
    monkeypatch.setattr(budget, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert budget.seconds_of_gradients(eight_schools.bound, 1000) == 0.0
    each = 3 / min(budget._POINTS_TIMED, budget._NUMBERS_TIMED // eight_schools.bound.dim)
    assert budget.seconds_of_gradients(eight_schools.bound, 10**6) == pytest.approx(10**6 * each / 2)


def test_draws_that_the_disk_does_not_hold_are_refused(eight_schools, tmp_path):
    with pytest.raises(
        FitError, match=r"draws=1000000000 would take about .* in .*new, and .* are free there"
    ):
        check_draws(eight_schools.bound, 10**9, folder=tmp_path / "new")


METHODS = {
    "avi:full:full": "says 'full' more than once",
    "avi:mlp(3):mlp(4)": "says 'mlp' more than once",
    "avi:mlp(3):polynomial(2)": "exclude each other",
    "avi:full-rank:low-rank(3)": "exclude each other",
    "avi:data(x, x)": "reads a row of x twice",
    "avi:data(x):window(x, -1, 0)": "reads a row of x twice",
    "avi:window(x, 99999999999)": "offsets are small",
    "avi:mlp(10000000000)": "100000 is the most, as the weights of a network grow with its square",
    "avi:polynomial(100000)": "1999 is the most",
    "avi:low-rank(99999999999)": "100000 is the most",
    "avi:neighbours(99999999999)": "1000000 is the most",
    f"avi:mlp({'9' * 900})": "100000 is the most",
    "avi:mlp(\N{FULLWIDTH DIGIT THREE})": "needs a positive width",
    "avi:mlp(1e3)": "needs a positive width",
    "fvi:mlp(3)": "That belongs to avi",
    "constant:data(x)": "That belongs to avi",
    "avi:banded(3)": "It takes",
    "avi:": "has no part ''",
    "": "unknown method ''",
    "a" * 5000: "no method has a name of 5000 characters",
}


@pytest.mark.parametrize(("name", "helpful"), METHODS.items(), ids=[name[:30] for name in METHODS])
def test_a_method_that_contradicts_itself_or_never_ends_is_refused(name, helpful):
    with pytest.raises(MethodError) as refused:
        parse_method(name)
    assert helpful in str(refused.value)
    assert len(str(refused.value)) < 600


def test_methods_are_named_once():
    from avistan.comparison.competition import meaning

    check_methods(["avi", "fvi", "avi:mlp(32)", "pathfinder"], meaning)
    for names, words in (
        (["avi", "fvi", "avi"], "'avi' is named twice"),
        (["avi", "avi:mlp(64)"], "'avi' and 'avi:mlp\\(64\\)' are the same method"),
        (["pathfinder", "pathfinder"], "'pathfinder' is named twice"),
        ([], "methods is empty"),
    ):
        with pytest.raises(MethodError, match=words):
            check_methods(names, meaning)
