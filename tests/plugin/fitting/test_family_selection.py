"""Growing families: nothing is lost on the way, what pays is kept, and restarts share the family."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import avistan as avi
from avistan.family.family import Family
from avistan.family.functions import Constant, LocalNu, Table, make_mlp, make_polynomial
from avistan.family.globals import start_globals
from avistan.family.locals import local_form
from avistan.family.method import parse_method
from avistan.family.placement import make_frame, make_placement
from avistan.fitting.family_selection import (
    grown,
    judge_step,
    leaves_nothing,
    stages,
    without_shapes,
    worth_trying,
)
from avistan.objective.elbo import Evaluation
from family_draws import drawn
from programs import bundled, simulator

N, D_LOCAL, G, R = 4, 2, 3, 5
LOCATION_AND_GROUPS = """
data { int N; vector[N] x; }
parameters { vector[2] mu; vector[N] z; }
model {
  mu[1] ~ normal(0, 1);
  mu[2] ~ normal(0.9 * mu[1], 0.3);
  z ~ normal(mu[1], 0.3);
  x ~ normal(z, 1);
}
"""


def start(method_name: str, source: str) -> tuple[Family, jax.Array]:
    """A family with generic values everywhere."""
    rng = np.random.default_rng(2)
    method = parse_method(method_name)
    local, directions, curve = local_form(method, D_LOCAL, start_globals(method.globals, G))
    columns = N if source == "table" else 1
    nu = LocalNu(*(jnp.asarray(rng.normal(size=(size, columns))) for size in local.sizes))
    function = {
        "table": lambda: Table(nu),
        "constant": lambda: Constant(nu),
        "polynomial": lambda: make_polynomial(R, 2, nu),
        "mlp": lambda: make_mlp(np.random.default_rng(0), R, 6, nu),
    }[source]()
    generic = jax.tree.map(
        lambda leaf: leaf + jnp.asarray(0.2 * rng.normal(size=leaf.shape), leaf.dtype), function
    )
    frame = make_frame(
        rng.normal(size=G),
        rng.uniform(1, 2, G),
        rng.normal(size=(D_LOCAL, columns)),
        rng.uniform(1, 2, (D_LOCAL, columns)),
    )
    at, index = np.arange(G), (G + np.arange(N * D_LOCAL)).reshape(N, D_LOCAL)
    factor = start_globals(method.globals, G, method.rank, flow=method.flow)
    family = Family(factor, generic, local, frame, make_placement(at, index), directions, curve)
    return family, jnp.asarray(rng.normal(size=(N, R)), dtype=jnp.float32)


@pytest.mark.parametrize("source", ["table", "constant", "polynomial", "mlp"])
@pytest.mark.parametrize(
    ("poor", "rich"),
    [
        ("avi", "avi:full"),
        ("avi", "avi:full:full-rank:conditional"),
        ("avi", "avi:full:low-rank(2):conditional"),
        ("avi:low-rank(2)", "avi:full:low-rank(2):conditional(mean+scale)"),
        ("avi:full", "avi:full:conditional(mean+scale)"),
        ("avi:conditional", "avi:full:full-rank:conditional"),
        ("avi", "avi:banded(2):conditional"),
        ("avi:full", "avi:banded:full-rank:conditional(mean+scale)"),
        ("avi:banded:conditional", "avi:banded(2):conditional(mean+scale)"),
        ("avi", "avi:flow"),
        ("avi:flow", "avi:full:full-rank:conditional:flow"),
        ("avi:full:full-rank:conditional", "avi:full:full-rank:conditional(mean+scale):flow"),
        ("avi", "avi:conditional(curved)"),
        ("avi:full:conditional", "avi:full:full-rank:conditional(curved):flow"),
        ("avi:banded:conditional", "avi:banded(2):conditional(curved)"),
        ("fvi:full:conditional(mean+scale)", "fvi:full:conditional(curved)"),
    ],
)
def test_a_grown_family_stands_where_the_poorer_one_stood(source, poor, rich):
    family, inputs = start(poor, source)
    richer = grown(family, parse_method(rich))
    noise = jax.random.normal(jax.random.key(1), (3, family.dim))
    for before, after in zip(drawn(family, noise, inputs), drawn(richer, noise, inputs), strict=True):
        np.testing.assert_allclose(before, after, rtol=2e-6, atol=1e-6)  # networks are in single precision


def test_stages_add_what_the_program_has_room_for():
    def names(block, num_globals, method="avi", **kwargs):
        return [stage.name for stage in stages(parse_method(method), block, num_globals, **kwargs)]

    scales, flow, heavy = ":conditional(curved)", ":flow", ":student"

    def tailed(*stages):
        """Of few parameters heavy tails come last."""
        return [*stages, stages[-1] + heavy]

    pair = ["avi:full:full-rank:conditional", "avi:full:full-rank" + scales + flow]
    straight = [name.replace("curved", "mean+scale") for name in pair]  # of many parameters
    single = [name.replace(":full:", ":") for name in pair]
    assert names(2, 3) == names(2, 3, num_units=298) == tailed(*pair)
    assert names(2, 3, num_units=299) == names(2, 3, num_units=9999) == straight
    assert names(2, 3, num_units=9999, by_path=True) == straight
    assert names(1, 3, by_path=True) == tailed(*single)
    assert names(1, 1) == names(1, 1, by_path=True) == tailed("avi:conditional", "avi" + scales + flow)
    assert names(0, 5, "fvi") == ["fvi:full-rank", "fvi:full-rank:flow"]
    assert names(0, 1, "fvi") == ["fvi:flow"]
    low_rank = ["avi:full:low-rank:conditional", "avi:full:low-rank" + scales]
    assert names(2, 501) == tailed(*low_rank)
    assert names(2, 501, num_units=400) == low_rank[:1]
    assert names(2, 501, by_path=True) == tailed("avi:full:conditional", "avi:full" + scales + flow)
    assert names(0, 501, "fvi") == ["fvi:low-rank"]
    assert names(1, 501, "avi:levels") == ["avi:levels:conditional", "avi:levels" + scales]
    low_rank = "avi:low-rank(2)" + scales
    assert names(1, 3, "avi:low-rank(2):conditional", num_units=200) == tailed(low_rank)
    assert names(1, 3, "avi:low-rank(2):conditional", num_units=20) == tailed(low_rank + flow)
    given = "avi:full:conditional"
    assert names(2, 3, given) == tailed(given + ":full-rank", pair[1])
    for named in ("curved", "mean+scale"):
        given = f"avi:full:full-rank:conditional({named})"
        assert names(2, 3, given) == tailed(given + flow)
        assert names(2, 3, given, num_units=9999) == [given + flow]
    for name in names(2, 3):
        assert parse_method(name).name == name


def test_of_many_parameters_shapes_are_tried_only_where_correlations_paid_or_much_is_left():
    correlated, shaped = parse_method("avi:conditional"), parse_method("avi:conditional(curved):flow")
    no, yes = (
        [judge_step(correlated, Evaluation(np.full(400, gain)), Evaluation(np.zeros(400)))]
        for gain in (0.0, 1.0)
    )
    near, far = Evaluation(np.array([0.0, 1.0] * 100)), Evaluation(np.array([0.0, 30.0] * 100))
    assert worth_trying(shaped, no, 100, near)
    assert worth_trying(shaped, yes, 100_000, near)
    assert worth_trying(correlated, no, 100_000, near)
    assert worth_trying(shaped, [], 100_000, near)
    assert not worth_trying(shaped, no, 100_000, near)
    assert worth_trying(shaped, no, 100_000, far)
    assert worth_trying(parse_method("fvi:banded:conditional(mean+scale)"), no, 100_000, near)


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("avi:flow", "avi"),
        ("avi:full:full-rank:conditional(mean+scale):flow", "avi:full:full-rank:conditional"),
        ("avi:full-rank:conditional(curved):flow", "avi:full-rank:conditional"),
        ("avi:mlp(8):conditional:flow", "avi:mlp(8):conditional"),
    ],
)
def test_a_method_without_its_shapes_is_what_its_name_says(name, plain):
    assert without_shapes(parse_method(name)) == parse_method(plain)


def test_a_named_flow_of_a_network_trains_its_gaussian_first():
    model = bundled("random_slopes")
    flow, gaussian = (
        model.fit(method=name, seed=1, steps=200)
        for name in ("avi:mlp(8):conditional:flow", "avi:mlp(8):conditional")
    )
    first, second = flow.chains[0].traces
    np.testing.assert_array_equal(first.elbo, gaussian.trace.elbo)
    assert len(second.elbo) == 100
    assert flow.method.name == "avi:mlp(8):conditional:flow"
    assert flow.growth == ()


def test_a_step_must_gain_more_than_a_fifth_of_a_nat_and_its_error():
    before = Evaluation(np.zeros(400))
    method = parse_method("avi:full")
    noise = np.random.default_rng(0).normal(size=400)
    assert judge_step(method, Evaluation(np.ones(400)), before).kept
    assert not judge_step(method, Evaluation(np.full(400, 0.1)), before).kept
    assert not judge_step(method, Evaluation(1 + 20 * noise), before).kept
    assert not judge_step(method, Evaluation(np.full(400, -np.inf)), before).kept
    one_pair = np.full(400, -np.inf)
    one_pair[:2] = 192.18
    assert not judge_step(method, Evaluation(one_pair), before).kept  # its error is unknown


def test_correlated_globals_and_units_that_follow_them_are_found_and_lose_nothing():
    x = np.random.default_rng(1).normal(0.5, 1.1, size=60)
    model = avi.Model(stan_code=LOCATION_AND_GROUPS, data={"N": 60, "x": x})
    fit = model.fit(seed=1, steps=2000)
    assert fit.method.name == "avi:full-rank:conditional"
    kept = [step for step in fit.growth if step.kept]
    assert kept[-1].elbo == pytest.approx(fit.elbo, abs=4 * kept[-1].elbo_se)  # of fewer draws
    assert (
        fit.growth[-1] == kept[-1]
    )  # scales and a flow have nothing to add to a Gaussian, and are not tried
    precision = np.diag([1 + 0.81 / 0.09, 1 / 0.09])
    precision[0, 1] = precision[1, 0] = -0.9 / 0.09
    precision[0, 0] += 60 / (0.09 + 1)
    covariance = np.linalg.inv(precision)
    theta, _ = fit.unconstrained_draws(20_000)
    np.testing.assert_allclose(np.cov(theta[:, :2].T), covariance, atol=0.05 * covariance.max())
    # The family holds the exact posterior, a Gaussian: the ELBO is the evidence, and hardly noisy.
    assert fit.evaluation.log_weights.std() < 0.3


@pytest.mark.slow
def test_growth_is_off_where_the_method_is_named_unless_asked_for():
    model = bundled("eight_schools")
    assert model.fit(method="avi", seed=1, steps=200).growth == ()
    assert model.fit(method="avi", family="auto", seed=1, steps=200).growth
    assert model.fit(seed=1, family="fixed", steps=200).growth == ()
    with pytest.raises(avi.AvistanError, match="unknown family 'rich'"):
        model.fit(family="rich")


def test_restarts_are_chains_of_one_family_and_repeat(tmp_path):
    model = bundled("eight_schools")
    fit = model.fit(method="avi", chains=3, seed=1, steps=400)
    assert len(fit.chains) == 3
    assert fit.elbo == max(chain.evaluation.elbo for chain in fit.chains)
    tree = fit.posterior(100, resample="none")
    assert tree["posterior"]["mu"].shape == (3, 100)
    again = model.fit(method="avi", chains=3, seed=1, steps=400)
    for one, other in zip(fit.chains, again.chains, strict=True):
        assert one.trace.elbo.tobytes() == other.trace.elbo.tobytes()
    assert fit.chains[0].trace.elbo.tobytes() != fit.chains[1].trace.elbo.tobytes()
    single = model.fit(method="avi", seed=1, steps=400)
    assert single.trace.elbo.tobytes() == fit.chains[0].trace.elbo.tobytes()
    fit.save(tmp_path / "fit")
    loaded = avi.load(tmp_path / "fit")
    assert [chain.evaluation.elbo for chain in loaded.chains] == [
        chain.evaluation.elbo for chain in fit.chains
    ]
    np.testing.assert_array_equal(
        loaded.posterior(20, resample="none")["posterior"]["mu"].values,
        fit.posterior(20, resample="none")["posterior"]["mu"].values,
    )
    kept = fit.keep_chains([2, 0])
    assert [c.evaluation.elbo for c in kept.chains] == [fit.chains[i].evaluation.elbo for i in (2, 0)]
    with pytest.raises(avi.AvistanError, match="restarts 0 to 2"):
        fit.keep_chains([3])


def test_restarts_begin_at_scattered_points_and_mix_by_their_elbo():
    modes = """
    parameters { real x; vector[3] z; }
    model { target += log_mix(0.8, normal_lpdf(x | -3, 0.3), normal_lpdf(x | 3, 0.3)); z ~ std_normal(); }
    """
    fit = avi.Model(stan_code=modes).fit(chains=6, seed=2, steps=400)
    centres = fit.posterior(200, resample="none")["posterior"]["x"].mean("draw").values
    left, right = int(np.argmax(centres < -2)), int(np.argmax(centres > 2))
    assert centres[left] < -2
    assert centres[right] > 2
    mixed = fit.keep_chains([left, right]).posterior(4000, resample="elbo", seed=1)
    assert mixed["posterior"]["x"].shape == (1, 4000)
    share = float((mixed["posterior"]["x"] < 0).mean())
    np.testing.assert_allclose(share, 0.8, atol=0.04)  # the modes' masses; Monte Carlo error 0.006
    np.testing.assert_array_equal(mixed["sample_stats"]["restart"] == 0, mixed["posterior"]["x"] < 0)
    with pytest.raises(avi.AvistanError, match="choose 'auto', 'none' or 'elbo'"):
        fit.posterior(10, resample="stack")


def test_growth_ends_where_log_weights_say_that_nothing_is_left():
    rng = np.random.default_rng(1)
    for variance, nothing in (
        (0.0, True),
        (0.2, True),
        (0.8, False),
    ):  # half of it is left, of which 0.2 would pay
        weights = 7.0 + np.sqrt(variance) * rng.standard_normal(2000)
        assert leaves_nothing(Evaluation(weights)) is nothing
    assert not leaves_nothing(Evaluation(np.full(4, -np.inf)))
    model = bundled("linear", simulator("linear")(N=300))
    fit = model.fit(seed=1)
    assert [step.method for step in fit.growth] == ["avi:conditional"]
    assert fit.evaluation.log_weights.var() < 0.1
