"""Quasi-Newton paths: Gaussians with known answers, a funnel, rejecting regions; and fits from hard starts."""

import numpy as np
import pytest
from scipy.optimize import minimize, rosen, rosen_der

import avistan as avi
from avistan.start.lbfgs_path import elbo_at, walk
from avistan.start.quick_fit import quick_fit
from hard_programs import PROGRAMS
from programs import NORMALS, bind


class Written:
    """A density written in numpy; `function` maps a point (D,) to a log density and its gradient."""

    def __init__(self, dim, function):
        self.dim, self.function, self.calls = dim, function, 0

    def log_density_gradient(self, theta):
        self.calls += len(theta)
        found = [self.function(row) for row in np.asarray(theta)]
        return np.array([lp for lp, _ in found]), np.array([gradient for _, gradient in found])

    def why_rejected(self, theta):
        return "outside"


def gaussian(mean, precision):
    def function(theta):
        pull = precision @ (theta - mean)
        return -0.5 * (theta - mean) @ pull, -pull

    return Written(len(mean), function)


def noise(dim, draws=6):
    half = np.random.default_rng(3).standard_normal((draws // 2, dim))
    return np.concatenate([half, -half])


def precision_of(decades, turn):
    """Precisions over so many decades, along axes that are turned by so much."""
    rotation, _ = np.linalg.qr(np.eye(6) + turn * np.random.default_rng(4).normal(size=(6, 6)))
    precision = rotation @ np.diag(np.logspace(-decades / 2, decades / 2, 6)) @ rotation.T
    return 0.5 * (precision + precision.T)


@pytest.mark.parametrize(("decades", "turn"), [(8, 0.0), (2, 0.0)])
def test_an_ill_conditioned_gaussian_far_away_is_found_with_its_conditional_sds(decades, turn):
    mean, precision = 100 * np.arange(1.0, 7.0), precision_of(decades, turn)
    path = walk(gaussian(mean, precision), np.zeros(6), noise(6))
    assert path.best is not None
    apart = path.best.mean - mean
    assert 0.5 * apart @ precision @ apart < 0.1  # nats
    np.testing.assert_allclose(path.best.sd, 1 / np.sqrt(np.diag(precision)), rtol=0.3)


def test_the_elbo_of_a_gaussian_is_the_known_one():
    sd = np.array([2.0, 0.01])
    model = gaussian(np.array([1.0, -3.0]), np.diag(1 / sd**2))
    # q = p: log p - log q is the constant for every draw
    assert elbo_at(model, np.array([1.0, -3.0]), sd, noise(2)) == pytest.approx(np.log(sd).sum())


def test_rejected_draws_make_an_elbo_infinite_or_are_left_out():
    def function(theta):
        return (-np.inf, np.zeros(1)) if theta[0] > 0 else (0.0, np.zeros(1))

    model = Written(1, function)
    draws = np.array([[-1.0], [1.0]])
    assert elbo_at(model, np.zeros(1), np.ones(1), draws) == -np.inf
    assert elbo_at(model, np.zeros(1), np.ones(1), draws, accepted_only=True) == pytest.approx(0.5)


def test_a_curved_valley_is_followed_in_as_few_gradients_as_scipys_within_a_factor():
    model = Written(2, lambda x: (-100 * rosen(x), -100 * rosen_der(x)))
    start = np.array([-1.2, 1.0])
    path = walk(model, start, noise(2), patience=100)
    found = minimize(rosen, start, jac=rosen_der, method="L-BFGS-B")
    assert path.best is not None
    assert path.gradient_evaluations == model.calls
    draws_apart = path.gradient_evaluations - 12 * 100
    assert draws_apart < 10 * found.nfev
    assert rosen(path.best.mean) < 0.1


def test_in_a_funnel_the_best_elbo_wins_and_not_the_densest_point():
    """Neal's funnel of 20: the joint density is unbounded as v falls, where a normal gains nothing."""

    def function(x):
        v, z = x[0], x[1:]
        if abs(v) > 300:
            return -np.inf, np.zeros(21)
        lp = -0.5 * v**2 / 9 - 0.5 * (z**2).sum() * np.exp(-v) - 10 * v
        gradient = np.concatenate([[-v / 9 + 0.5 * (z**2).sum() * np.exp(-v) - 10], -z * np.exp(-v)])
        return lp, gradient

    model = Written(21, function)
    start = np.concatenate([[2.0], np.random.default_rng(5).normal(size=20)])
    shared = noise(21)
    path = walk(model, start, shared, patience=30)
    mode = np.concatenate([[-90.0], np.zeros(20)])  # by calculus, with z = 0
    assert function(mode)[0] > function(path.best.mean)[0] + 100
    assert path.best.elbo > elbo_at(model, mode, np.concatenate([[0.3], np.full(20, np.exp(-45))]), shared)
    assert path.best.mean[0] > -30


def test_a_step_into_a_rejecting_region_is_shortened():
    def function(x):
        if x[0] > 5.5:
            return -np.inf, np.zeros(1)
        return -0.5 * (x[0] - 5) ** 2 / 0.01, -(x - 5) / 0.01

    path = walk(Written(1, function), np.array([-30.0]), noise(1))
    assert path.best is not None
    assert abs(path.best.mean[0] - 5) < 0.05
    assert path.best.sd[0] == pytest.approx(0.1, rel=0.1)


def test_nothing_is_returned_where_nothing_beats_what_is_there():
    path = walk(gaussian(np.zeros(2), np.eye(2)), np.ones(2), noise(2), to_beat=1.0)
    assert path.best is None
    assert 0 < path.gradient_evaluations < 200


def test_an_easy_program_keeps_its_start_and_pays_little():
    with bind(NORMALS, {"D": 3, "mean": [1.0, -2.0, 0.1], "sd": [0.5, 1.0, 2.0]}) as model:
        plain, tried = (quick_fit(model, seed=1, path=path) for path in (False, True))
    assert tried.mean.tobytes() == plain.mean.tobytes()
    assert tried.sd.tobytes() == plain.sd.tobytes()
    assert plain.gradient_evaluations < tried.gradient_evaluations <= 1.2 * plain.gradient_evaluations


def test_a_hard_start_repeats():
    hard = PROGRAMS["far, narrow normal"]()
    with bind(hard.code, hard.data) as model:
        one, two = (quick_fit(model, seed=2) for _ in range(2))
    assert one.mean.tobytes() == two.mean.tobytes()
    assert one.gradient_evaluations == two.gradient_evaluations


def test_a_random_start_stays_one():
    """Paths of a scattered start begin where its run is: restarts would else all end in the best place."""
    hard = PROGRAMS["far, wide normal"]()
    with bind(hard.code, hard.data) as model:
        one, other = (quick_fit(model, seed=seed, scattered=True) for seed in (1, 2))
    assert one.mean.tobytes() != other.mean.tobytes()
    np.testing.assert_allclose(one.mean, other.mean, atol=0.5 * one.sd.max())


def test_a_sample_far_away_is_fitted_as_its_closed_form_says():
    """With flat priors mu has mean ybar; sigma^2 is S over a chi-square of N - 2, S the sum of squares around ybar."""
    hard = PROGRAMS["far, narrow normal"]()
    y = hard.data["y"]
    fit = avi.Model(stan_code=hard.code, data=hard.data).fit(method="fvi", seed=1)
    assert fit.outcome.name == "settled"
    draws = fit.posterior(draws=2000, seed=1, resample="none").posterior
    spread = y.std(ddof=1)
    assert abs(float(draws["mu"].mean()) - y.mean()) < 0.3 * spread / np.sqrt(len(y))
    assert float(draws["sigma"].mean()) == pytest.approx(spread, rel=0.3 / np.sqrt(2 * len(y)) + 0.03)


@pytest.mark.parametrize("name", ["unscaled regression", "large counts", "narrow region"])
def test_a_hard_start_ends_near_the_place_of_its_data(name):
    hard = PROGRAMS[name]()
    with bind(hard.code, hard.data) as model:
        point = model.unconstrain(hard.truth)
        plain = quick_fit(model, seed=1, start=point, path=True)
        found = quick_fit(model, seed=1)
        lp = model.log_density_gradient(np.stack([point, found.mean]))[0]
    assert lp[1] > lp[0] - 1.0  # the posterior mean of so few parameters is about as dense as the truth
    assert found.elbo_trace[-1] > plain.elbo_trace[-1] - 3.0
