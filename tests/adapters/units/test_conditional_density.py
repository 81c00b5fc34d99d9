"""Densities of single units from gradients of the whole model, against closed forms and dense quadrature."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit, log_expit, logsumexp

from programs import REJECTS, bind, bundled, simulator
from stan_adapters.units.conditional_density import (
    UnitDensity,
    cholesky,
    line_directions,
    solve_lower,
    solve_upper,
)

COUNTS = """
data { int N; array[N] int y; vector[N] x; }
parameters { real m; real s; matrix[N, 2] z; }
model {
  m ~ std_normal();
  s ~ std_normal();
  to_vector(z) ~ normal(m, exp(s));
  for (n in 1:N) y[n] ~ poisson_log(z[n, 1] + z[n, 2] * x[n]);
}
"""
HEAVY = """
data { int N; vector[N] y; }
parameters { real m; vector[N] z; }
model { m ~ std_normal(); z ~ student_t(4, m, 1); y ~ student_t(3, z, 2); }
"""


def unit_density(model):
    level = model.inspect().level
    return UnitDensity(model.bound, level.index, level.globals_index(model.bound.dim))


@pytest.fixture(scope="module")
def linear():
    data = simulator("linear")(40)
    model = bundled("linear", data)
    return unit_density(model), {name: np.asarray(value) for name, value in data.items()}


def test_everything_about_normal_units_is_exact(linear):
    density, data = linear
    x, tau, sigma = data["x"], data["tau"], data["sigma"]
    theta = np.array([[-1.0], [0.5], [2.0]])
    modes = density.modes(theta, np.zeros((3, 40, 1)))
    precision = tau**-2 + sigma**-2
    np.testing.assert_allclose(modes.z[..., 0], (theta / tau**2 + x / sigma**2) / precision, atol=1e-8)
    np.testing.assert_allclose(modes.chol[..., 0, 0] ** 2, precision, rtol=1e-6)
    # Stan drops the constants of both statements.
    marginal = stats.norm.logpdf(x, theta, np.hypot(tau, sigma)).sum(axis=1)
    dropped = 40 * np.log(2 * np.pi * tau * sigma)
    np.testing.assert_allclose(modes.laplace, marginal + dropped, atol=1e-5)
    lines = line_directions(np.random.default_rng(1), (1, 40), 1)
    for grade in ("coarse", "fine", "finest"):
        found = density.conditionals(theta, modes, lines, grade=grade)
        np.testing.assert_allclose(found.correction, 0, atol=1e-6)


def test_differences_are_those_of_single_units(linear):
    density, data = linear
    rng = np.random.default_rng(3)
    theta, start, end = rng.normal(size=(2, 1)), rng.normal(size=(2, 40, 1)), rng.normal(size=(2, 40, 1))

    def log_density(z):
        prior = ((z[..., 0] - theta) / data["tau"]) ** 2
        return -0.5 * prior - 0.5 * ((data["x"] - z[..., 0]) / data["sigma"]) ** 2

    expected = log_density(end) - log_density(start)
    np.testing.assert_allclose(density.differences(theta, start, end, nodes=1), expected, atol=1e-12)


def test_differences_sum_to_the_change_of_the_whole_density():
    rng = np.random.default_rng(5)
    with bind(HEAVY, {"N": 30, "y": rng.normal(0, 3, 30)}) as model:
        density = UnitDensity(model, np.arange(1, 31)[:, None], np.array([0]))
        theta, start = rng.normal(size=(4, 1)), rng.normal(size=(4, 30, 1))
        end = start + rng.normal(size=start.shape)
        change = density.differences(theta, start, end).sum(axis=1)
        whole = density.scores(theta, end)[0] - density.scores(theta, start)[0]
    np.testing.assert_allclose(change, whole, atol=1e-6)


@pytest.fixture(scope="module")
def counts():
    """Pairs of latents behind one count each, zeros and large ones: densities far from Gaussian, and a grid of each."""
    y, x = np.array([0, 0, 1, 3, 40, 0]), np.array([0.0, 1.5, -1.0, 0.5, 1.0, -2.0])
    theta = np.array([[0.3, 0.2], [-0.5, 0.9]])
    with bind(COUNTS, {"N": 6, "y": y, "x": x}) as model:
        index = np.stack([2 + np.arange(6), 8 + np.arange(6)], axis=1)
        density = UnitDensity(model, index, np.array([0, 1]))
        modes = density.modes(theta, np.zeros((2, 6, 2)))
        axis = np.linspace(-12, 12, 601)
        one, two = np.meshgrid(axis, axis, indexing="ij")

        def log_density(s, n):
            rate = one + two * x[n]
            square = ((one - theta[s, 0]) ** 2 + (two - theta[s, 0]) ** 2) / np.exp(2 * theta[s, 1])
            return y[n] * rate - np.exp(rate) - 0.5 * square

        yield density, theta, modes, one, two, log_density, axis[1] - axis[0]


def test_integrals_of_skewed_pairs_agree_with_a_dense_grid(counts):
    density, theta, modes, one, two, log_density, width = counts
    lines = line_directions(np.random.default_rng(1), (1, 6), 2, frames=4)
    found = density.conditionals(theta, modes, lines).correction
    for s in range(2):
        for n in range(6):
            values = log_density(s, n)
            integral = logsumexp(values) + 2 * np.log(width)
            at = modes.z[s, n]
            nearest = np.argmin((one - at[0]) ** 2 + (two - at[1]) ** 2)
            # The grid knows the height at its own points: the mode's is one quadratic step away.
            offset = np.array([one.flat[nearest], two.flat[nearest]]) - at
            height = values.flat[nearest] + 0.5 * np.sum((modes.chol[s, n].T @ offset) ** 2)
            expected = integral - height - modes.log_volume[s, n]
            assert abs(found[s, n] - expected) < 0.01


def test_draws_of_skewed_pairs_have_the_moments_of_a_dense_grid(counts):
    density, theta, modes, one, two, log_density, _ = counts
    rng, copies = np.random.default_rng(7), 1000
    for s in range(2):
        many = np.repeat(theta[s : s + 1], copies, axis=0)
        modes = density.modes(many, np.zeros((copies, 6, 2)))
        draws = density.conditionals(many, modes, line_directions(rng, (copies, 6), 2, frames=4), rng).z
        for n in range(6):
            weight = np.exp(log_density(s, n) - log_density(s, n).max())
            weight /= weight.sum()
            for k, values in enumerate((one, two)):
                mean = (weight * values).sum()
                sd = np.sqrt((weight * (values - mean) ** 2).sum())
                assert abs(draws[:, n, k].mean() - mean) < 4 * sd / np.sqrt(copies)
                assert abs(draws[:, n, k].std() / sd - 1) < 0.15


def test_integrals_and_draws_of_heavy_tailed_units_agree_with_quadrature():
    y = np.array([0.0, 3.0, -5.0])
    rng, copies = np.random.default_rng(2), 4000
    with bind(HEAVY, {"N": 3, "y": y}) as model:
        density = UnitDensity(model, np.arange(1, 4)[:, None], np.array([0]))
        theta = np.full((copies, 1), 0.4)
        modes = density.modes(theta, np.zeros((copies, 3, 1)))
        found = density.conditionals(theta, modes, line_directions(rng, (1, 3), 1), rng)
    z = np.linspace(-400, 400, 400_001)
    for n in range(3):
        values = stats.t.logpdf(z - 0.4, 4) + stats.t.logpdf((z - y[n]) / 2, 3)
        height = np.interp(modes.z[0, n, 0], z, values)
        expected = logsumexp(values) + np.log(z[1] - z[0]) - height - modes.log_volume[0, n]
        assert abs(found.correction[0, n] - expected) < 0.005
        cumulative = np.cumsum(np.exp(values - values.max()))
        test = stats.kstest(found.z[:, n, 0], lambda at, c=cumulative: np.interp(at, z, c / c[-1]))
        assert test.pvalue > 1e-3


def test_the_finest_integrals_see_a_wide_mode_beside_a_spike():
    code = """
    data { int N; vector[N] y; }
    parameters { real log_scale; vector[N] z; }
    model { log_scale ~ std_normal(); z ~ student_t(1.5, 0, exp(log_scale)); y ~ normal(z, 0.5); }"""
    y, scales = np.array([0.5, 1.0, 1.5, 2.0]), np.array([0.1, 0.2, 0.4])
    with bind(code, {"N": 4, "y": y}) as model:
        density = UnitDensity(model, np.arange(1, 5)[:, None], np.array([0]))
        theta = np.log(scales)[:, None]
        modes = density.modes(theta, np.zeros((3, 4, 1)))
        lines = line_directions(np.random.default_rng(1), (1, 4), 1)
        errors = {}
        for grade in ("fine", "finest"):
            found = density.conditionals(theta, modes, lines, grade=grade).correction
            z = np.linspace(-20, 20, 400_001)
            values = stats.t.logpdf(z / scales[:, None, None], 1.5) + stats.norm.logpdf(y[:, None], z, 0.5)
            at_modes = stats.t.logpdf(modes.z[..., 0] / scales[:, None], 1.5) + stats.norm.logpdf(
                y, modes.z[..., 0], 0.5
            )
            exact = logsumexp(values, axis=2) + np.log(z[1] - z[0]) - at_modes - modes.log_volume
            errors[grade] = np.abs(found - exact).max()
    assert errors["finest"] < 0.005
    assert errors["fine"] > 0.02


def test_an_item_response_unit_agrees_with_quadrature():
    model = bundled("lsat_2pl")
    density = unit_density(model)
    a, b = np.array([0.8, 0.7, 0.9, 0.7, 0.6]), np.array([2.8, 1.0, 0.2, 1.3, 2.0])
    theta = np.concatenate([np.log(a), b])[None]
    modes = density.modes(theta, np.zeros((1, 1000, 1)))
    found = density.conditionals(theta, modes, line_directions(np.random.default_rng(1), (1, 1000), 1))
    z = np.linspace(-10, 10, 4001)
    y = np.asarray(model.data["y"])
    for n in (0, 77, 999):
        eta = b + a * z[:, None]
        values = log_expit(np.where(y[n] == 1, eta, -eta)).sum(axis=1) - 0.5 * z**2
        height = np.interp(modes.z[0, n, 0], z, values)
        curvature = 1 + (a**2 * expit(b + a * modes.z[0, n, 0]) * expit(-b - a * modes.z[0, n, 0])).sum()
        assert abs(modes.chol[0, n, 0, 0] ** 2 - curvature) < 1e-5
        expected = logsumexp(values) + np.log(z[1] - z[0]) - height - modes.log_volume[0, n]
        assert abs(found.correction[0, n] - expected) < 1e-4


def test_a_rejected_point_is_no_number():
    with bind(REJECTS, {"N": 6, "y": [0.1, -0.4, 0.3, 0.0, -0.2, 0.5], "limit": 1.0}) as model:
        density = UnitDensity(model, np.arange(1, 7)[:, None], np.array([0]))
        theta, low = np.zeros((2, 1)), np.full((2, 6, 1), -1.0)
        high = low.copy()
        high[1] = 3.0
        change = density.differences(theta, low, high)
        modes = density.modes(theta, high)
        lines = line_directions(np.random.default_rng(1), (1, 6), 1)
        integrals = density.conditionals(theta, modes, lines)
    assert (change[0] == 0).all()
    assert np.isnan(change[1]).all()
    assert np.isneginf(modes.log_density[1])
    # What lies beyond the limit has no mass: rays end near it, and the integral is below the whole Gaussian's.
    assert (np.abs(integrals.correction[0] + 0.15) < 0.1).all()
    assert np.isnan(integrals.correction[1]).all()


def test_a_search_that_leaves_the_support_goes_back():
    # Far out the curvature is nearly none: Newton's steps from there are long, and Stan rejects where they end.
    code = """
    data { int N; }
    parameters { real mu; vector[N] z; }
    model {
      mu ~ std_normal();
      for (n in 1 : N) {
        if (abs(z[n]) > 20) reject("z is ", z[n]);
        target += -sqrt(1 + square(z[n] - mu));
      }
    }"""
    with bind(code, {"N": 5}) as model:
        density = UnitDensity(model, np.arange(1, 6)[:, None], np.array([0]))
        start = np.array([[[10.0], [0.1], [-9.0], [3.0], [0.0]], [[0.5]] * 5])
        modes = density.modes(np.zeros((2, 1)), start)
    np.testing.assert_allclose(modes.z, 0, atol=1e-3)
    np.testing.assert_allclose(modes.log_density, -5, atol=1e-4)


@pytest.mark.parametrize("d", [1, 2, 3, 5])
def test_directions_are_of_length_one_and_frames_are_orthogonal(d):
    lines = line_directions(np.random.default_rng(4), (2, 3), d)
    np.testing.assert_allclose(np.linalg.norm(lines, axis=-1), 1)
    assert lines.shape == (2, 3, 1 if d == 1 else 2 * d, d)
    if d > 2:
        frame = lines[1, 2, :d]
        np.testing.assert_allclose(frame @ frame.T, np.eye(d), atol=1e-12)


def test_triangular_factors_and_solves():
    rng = np.random.default_rng(6)
    root = rng.normal(size=(7, 4, 4))
    matrices = root @ np.swapaxes(root, 1, 2)
    factor, right = cholesky(matrices), rng.normal(size=(7, 4))
    np.testing.assert_allclose(factor @ np.swapaxes(factor, 1, 2), matrices, atol=1e-10)
    np.testing.assert_allclose(np.einsum("nij,nj->ni", factor, solve_lower(factor, right)), right, atol=1e-8)
    np.testing.assert_allclose(np.einsum("nji,nj->ni", factor, solve_upper(factor, right)), right, atol=1e-8)
    assert (np.diagonal(cholesky(-matrices), axis1=1, axis2=2) > 0).all()


def test_batches_cover_all_draws_and_shrink_with_the_model(linear):
    density, _ = linear
    assert sum(part.stop - part.start for part in density.batches(1000)) == 1000
    assert len(list(density.batches(10, copies=10**6))) == 10


def test_where_every_point_is_rejected_there_are_no_integrals():
    with bind(REJECTS, {"N": 4, "y": [0.1, -0.4, 0.3, 0.0], "limit": 1.0}) as model:
        density = UnitDensity(model, np.arange(1, 5)[:, None], np.array([0]))
        theta = np.zeros((2, 1))
        modes = density.modes(theta, np.full((2, 4, 1), 3.0))  # above the limit
        lines = line_directions(np.random.default_rng(1), (1, 4), 1)
        found = density.conditionals(theta, modes, lines, np.random.default_rng(2))
    assert np.isneginf(modes.log_density).all()
    assert np.isnan(found.correction).all()
    assert found.correction.shape == (2, 4)
    np.testing.assert_array_equal(found.z, modes.z)


WIDE_COUNTS = """
data { int N; array[N] int y; }
parameters { real m; real s; vector[N] z; }
model { m ~ std_normal(); s ~ std_normal(); z ~ normal(0, exp(s)); y ~ poisson_log(m + z); }
"""


@pytest.mark.parametrize("log_sd", [0.0, 2.0, 4.5])
@pytest.mark.parametrize("grade", ["coarse", "fine", "finest"])
def test_a_unit_that_falls_off_like_an_exponential_of_an_exponential_gets_no_mass_there(log_sd, grade):
    """A prior sd of 90 beside a likelihood of exp(-exp(z)): between few nodes a polynomial would rise by thousands."""
    y = np.array([0, 1, 3, 12, 60])
    with bind(WIDE_COUNTS, {"N": 5, "y": y}) as model:
        density = UnitDensity(model, np.arange(2, 7)[:, None], np.array([0, 1]))
        theta = np.array([[0.3, log_sd]])
        modes = density.modes(theta, np.zeros((1, 5, 1)))
        lines = line_directions(np.random.default_rng(1), (1, 5), 1)
        found = density.conditionals(theta, modes, lines, np.random.default_rng(2), grade=grade)
    grid = np.linspace(-12 * np.exp(log_sd), 12, 400_001)[:, None]
    values = -0.5 * (grid * np.exp(-log_sd)) ** 2 + y * (0.3 + grid) - np.exp(0.3 + grid)
    at_mode = modes.z[0, :, 0]
    top = -0.5 * (at_mode * np.exp(-log_sd)) ** 2 + y * (0.3 + at_mode) - np.exp(0.3 + at_mode)
    right = logsumexp(values, axis=0) + np.log(grid[1, 0] - grid[0, 0]) - top
    error = modes.log_volume[0] + found.correction[0] - right
    assert np.abs(error).max() < {"coarse": 0.5, "fine": 0.1, "finest": 0.01}[grade]
    assert np.isfinite(found.z).all()
