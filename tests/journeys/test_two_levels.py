"""Two levels amortized at once: exact where it must be, near F-VI where that is the answer, and refused by name."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import avistan as avi
import avistan.fitting.shard_preparation
from avistan.density.backend import native_available
from avistan.family.family import Family, num_variational_parameters, trainable
from avistan.family.globals import LevelGlobals
from avistan.family.method import parse_method
from avistan.fitting.family_selection import grown, stages
from avistan.fitting.shard_preparation import LargePreparation, prepare_large
from avistan.objective.elbo import gap
from avistan.runtime.errors import MethodError
from avistan.start.preparation import Preparation, prepare, start_family
from avistan.training.stopping import tolerance
from batch_gradients import check_mean_over_batches
from family_draws import drawn
from programs import bundled
from stan_adapters.errors import StructureError
from stan_adapters.levels.levels import candidate_levels
from stan_adapters.unit_data import Slicing

NESTED = """
data {
  int<lower=0> N; int<lower=0> S; int<lower=0> C;
  array[S] int<lower=1, upper=C> class_of;
  array[N] int<lower=1, upper=S> student;
  vector[N] y;
}
parameters {
  real mu; real<lower=0> tau_class; real<lower=0> tau_student; real<lower=0> sigma;
  vector[C] v; vector[S] u;
}
model {
  mu ~ normal(0, 2);
  tau_class ~ normal(0, 1);
  tau_student ~ normal(0, 1);
  sigma ~ normal(0, 1);
  v ~ normal(mu, tau_class);
  u ~ normal(v[class_of], tau_student);
  y ~ normal(u[student], sigma);
}
"""
# Persons in the rows of an array, items with two latents each; the items come first among the parameters.
CROSSED = """
data { int<lower=0> P; int<lower=0> I; array[I, P] int<lower=0, upper=1> y; }
parameters {
  vector<lower=0>[I] a; real mu; vector[I] b; real<lower=0> tau; vector[P] theta;
}
model {
  mu ~ normal(0, 2);
  tau ~ normal(0, 1);
  theta ~ std_normal();
  a ~ lognormal(0, 0.3);
  b ~ normal(mu, tau);
  for (i in 1:I) y[i] ~ bernoulli_logit(a[i] * (theta - b[i]));
}
"""


# The same with few of the items for each person, an answer in each row.
ANSWERS = """
data {
  int<lower=0> N; int<lower=0> P; int<lower=0> I;
  array[N] int<lower=1, upper=P> person; array[N] int<lower=1, upper=I> item;
  array[N] int<lower=0, upper=1> y;
}
parameters {
  vector<lower=0>[I] a; real mu; vector[I] b; real<lower=0> tau; vector[P] theta;
}
model {
  mu ~ normal(0, 2);
  tau ~ normal(0, 1);
  theta ~ std_normal();
  a ~ lognormal(0, 0.3);
  b ~ normal(mu, tau);
  y ~ bernoulli_logit(a[item] .* (theta[person] - b[item]));
}
"""


def nested_data(classes: int, students: int, seed: int = 1) -> dict:
    """Classes of so many students, each with 0 to 4 answers."""
    rng = np.random.default_rng(seed)
    class_of = np.repeat(np.arange(classes), students)
    u = rng.normal(rng.normal(1, 0.7, classes)[class_of], 0.5)
    student = np.repeat(np.arange(len(u)), rng.integers(0, 5, len(u)))
    return {
        "N": len(student),
        "S": len(u),
        "C": classes,
        "class_of": class_of + 1,
        "student": student + 1,
        "y": rng.normal(u[student], 0.6),
    }


def first_students(data: dict, count: int) -> dict:
    """The data of the first students, in as many classes as before."""
    rows = np.asarray(data["student"]) <= count
    some = {name: np.asarray(data[name])[rows] for name in ("student", "y")}
    return dict(data) | some | {"N": int(rows.sum()), "S": count, "class_of": data["class_of"][:count]}


def crossed_data(persons: int, items: int, seed: int = 1) -> dict:
    rng = np.random.default_rng(seed)
    theta, b, a = rng.normal(size=persons), rng.normal(0.3, 0.8, items), np.exp(0.3 * rng.normal(size=items))
    p = 1 / (1 + np.exp(-a[:, None] * (theta - b[:, None])))
    return {"P": persons, "I": items, "y": (rng.random(p.shape) < p).astype(int)}


def answers_data(persons: int, items: int, each: int, seed: int = 1) -> dict:
    """Each person answers so many random items."""
    rng = np.random.default_rng(seed)
    theta, b, a = rng.normal(size=persons), rng.normal(0.3, 0.8, items), np.exp(0.3 * rng.normal(size=items))
    person = np.repeat(np.arange(persons), each)
    item = np.argsort(rng.random((persons, items)), axis=1)[:, :each].ravel()
    p = 1 / (1 + np.exp(-a[item] * (theta[person] - b[item])))
    return {
        "N": len(item),
        "P": persons,
        "I": items,
        "person": person + 1,
        "item": item + 1,
        "y": (rng.random(len(p)) < p).astype(int),
    }


@pytest.fixture(scope="module")
def nested() -> avi.Model:
    return avi.Model(stan_code=NESTED, data=nested_data(40, 3))


@pytest.fixture(scope="module")
def crossed() -> avi.Model:
    return avi.Model(stan_code=CROSSED, data=crossed_data(50, 20))


def preparation_of(model: avi.Model) -> Preparation:
    proposed = candidate_levels(model.bound.layout)
    level, other = sorted(proposed, key=lambda level: level.num_units, reverse=True)
    return prepare(model.bound, level, others=(other,), seed=1, num_references=6, max_rank=4)


def disturbed(family: Family, seed: int = 0) -> Family:
    """The family with all trainable numbers moved a little, so that none is special."""
    rng = np.random.default_rng(seed)
    moved, fixed = eqx.partition(family, trainable(family))
    moved = jax.tree.map(lambda p: p + jnp.asarray(rng.normal(0, 0.1, p.shape), dtype=p.dtype), moved)
    return eqx.combine(moved, fixed)


@pytest.mark.parametrize("which", ["nested", "crossed"])
def test_draws_are_those_of_a_family_with_the_functions_outputs_as_its_globals(request, which):
    preparation = preparation_of(request.getfixturevalue(which))
    family, inputs = start_family(preparation, parse_method("avi:mlp(8):levels:conditional"))
    family = disturbed(family)
    assert isinstance(family.globals, LevelGlobals)
    plain = eqx.tree_at(lambda f: f.globals, family, family.globals.resolved())
    noise = jnp.asarray(np.random.default_rng(1).normal(size=(3, family.dim)))
    for one, other in zip(drawn(family, noise, inputs), drawn(plain, noise, inputs), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)  # networks are in single precision
    (level,), at = preparation.others, preparation.globals_index
    nu = family.globals.inference(family.globals.inputs)
    mean = family.frame.global_center + family.frame.global_scale * plain.globals.loc
    theta = drawn(family, jnp.zeros((1, family.dim)), inputs).theta[0]
    np.testing.assert_allclose(theta[at], mean, rtol=1e-6, atol=1e-6)
    place = np.searchsorted(at, level.index)
    log_sd = np.asarray(plain.globals.log_sd)[place]
    np.testing.assert_allclose(log_sd, np.asarray(nu.log_sd).T, rtol=1e-6, atol=1e-6)


@pytest.mark.skipif(not native_available(), reason="the compiled handler is not built")
def test_a_grown_family_stands_where_the_poorer_one_stood_and_stays_factorized_between_levels(crossed):
    method = parse_method("avi:mlp(8):levels")
    family, inputs = start_family(preparation_of(crossed), method)
    family = disturbed(family)
    names = [stage.name for stage in stages(method, 2, 50)]
    full = "avi:mlp(8):levels:full"
    assert names == [f"{full}:conditional", f"{full}:conditional(curved)"]
    assert [parse_method(name).name for name in names] == names
    noise = jax.random.normal(jax.random.key(1), (3, family.dim))
    for name in names:
        richer = grown(family, parse_method(name))
        for before, after in zip(drawn(family, noise, inputs), drawn(richer, noise, inputs), strict=True):
            np.testing.assert_allclose(before, after, rtol=2e-6, atol=1e-6)


def test_units_follow_the_globals_that_belong_to_no_level(crossed):
    preparation = preparation_of(crossed)
    family, inputs = start_family(preparation, parse_method("avi:mlp(8):levels:conditional"))
    family = disturbed(family)
    slopes = jax.jacobian(lambda e: drawn(family, e[None], inputs).theta[0])(jnp.ones(family.dim))
    free = [crossed.bound.layout[name].offset for name in ("mu", "tau")]
    beside = np.setdiff1d(preparation.globals_index, free)
    own = slopes[preparation.index[:, 0]]
    assert np.abs(own[:, free]).min() > 0
    np.testing.assert_array_equal(own[:, beside], 0.0)


def test_the_latents_of_the_other_level_move_together_at_the_reference_points(nested):
    preparation = preparation_of(nested)
    given, _ = preparation.unit_input(parse_method("avi:levels"))
    (level,), at, fit = preparation.others, preparation.globals_index, preparation.long_fit
    place = np.searchsorted(at, level.index[:, 0])
    v = level.index[:, 0]
    moves = (given.references.theta[:, place] - fit.mean[v]) / fit.sd[v]
    np.testing.assert_allclose(moves, np.broadcast_to(moves[:, :1], moves.shape), atol=1e-9)
    assert moves[0, 0] == 0
    assert len(np.unique(moves[:, 0])) == len(moves)


@pytest.mark.parametrize(
    ("code", "data", "method"),
    [
        (NESTED, nested_data(300, 4), "avi:mlp(6):levels"),
        (CROSSED, crossed_data(100, 60), "avi:mlp(4):levels"),
    ],
    ids=["nested", "crossed"],
)
@pytest.mark.slow
def test_elbos_are_those_of_factorized_inference_with_few_parameters(code, data, method):
    model = avi.Model(stan_code=code, data=data)
    both, free = (model.fit(method=name, seed=1, steps=700) for name in (method, "fvi"))
    value, se = gap(both.evaluation, free.evaluation)
    assert abs(value) < 1.0
    assert se < 0.1
    assert 3 * both.num_variational_parameters < free.num_variational_parameters


def test_parameters_do_not_grow_with_the_units_of_either_level():
    method = parse_method("avi:mlp(8):levels")
    sizes = []
    for classes, students in ((20, 3), (30, 4)):
        preparation = preparation_of(avi.Model(stan_code=NESTED, data=nested_data(classes, students)))
        sizes.append(num_variational_parameters(start_family(preparation, method)[0]))
    assert sizes[0] == sizes[1]


def test_a_fit_repeats_is_saved_and_serves_new_units(nested, tmp_path):
    fit, again = (nested.fit(method="avi:mlp(8):levels(C)", seed=3, steps=100, chains=2) for _ in range(2))
    for one, other in zip(fit.chains, again.chains, strict=True):
        assert one.trace.elbo.tobytes() == other.trace.elbo.tobytes()
    theta, log_q = fit.unconstrained_draws(20)
    np.testing.assert_array_equal(again.unconstrained_draws(20)[0], theta)
    fit.save(tmp_path / "fit")
    loaded = avi.load(tmp_path / "fit")
    assert str(loaded) == str(fit)
    assert "120 units of S and 40 units of C" in str(fit)
    np.testing.assert_array_equal(loaded.unconstrained_draws(20)[0], theta)
    np.testing.assert_array_equal(loaded.unconstrained_draws(20)[1], log_q)
    mean, sd = loaded.marginals()
    many, _ = fit.unconstrained_draws(4000)
    np.testing.assert_allclose(many.mean(axis=0), mean, atol=5 * sd.max() / np.sqrt(4000))
    assert loaded.posterior(10, resample="none")["posterior"]["v"].shape == (2, 10, 40)
    # The fitted students, as new ones, have the posteriors that they have in the fit.
    own = loaded.keep_chains([0])
    mean, sd = own.marginals()
    u = own.level.index[:, 0]
    found = own.predict(nested.data, 1000)["predictions"]["u"].values[0].mean(axis=0)
    np.testing.assert_array_less(np.abs(found - mean[u]) / sd[u], 5 / np.sqrt(1000))


@pytest.mark.slow
def test_auto_takes_a_second_level_of_more_than_200_units_and_says_so():
    steps = {"steps": 30, "family": "fixed"}
    many = avi.Model(stan_code=NESTED, data=nested_data(201, 2)).fit(**steps)
    assert many.method.name == "avi:levels"
    assert "C has more than 200 units: 201" in many.reason
    assert many.reason in str(many)
    few = avi.Model(stan_code=NESTED, data=nested_data(200, 2)).fit(**steps)
    assert few.method.name == "avi"
    assert few.second is None


def test_it_competes_by_name(crossed):
    found = crossed.compare(["avi:mlp(8):levels", "fvi"], seed=1, steps=400)
    row = found["avi:mlp(8):levels"]
    assert not row.failed
    assert abs(row.gap_to_fvi) < 1.0


@pytest.mark.parametrize("name", ["avi:levels:full-rank", "avi:low-rank(2):levels", "avi:banded:levels"])
def test_no_covariance_reaches_across_levels(name):
    with pytest.raises(MethodError, match="leave out :full-rank, :low-rank and :banded"):
        parse_method(name)


def test_a_second_level_that_is_not_there_is_refused(nested):
    with pytest.raises(MethodError, match=r"no second level 'Q'. There are: C \(v\)"):
        nested.fit(method="avi:levels(Q)")
    with pytest.raises(MethodError, match="no second level whose units are independent"):
        bundled("eight_schools").fit(method="avi:levels")
    with pytest.raises(MethodError, match="fvi has no part 'levels'"):
        nested.fit(method="fvi:levels")


# ---- minibatches of the first level ----------------------------------------------------------------------------


@pytest.fixture
def one_short_round(monkeypatch):
    """Signatures are read after a few steps: what these tests ask does not depend on how good they are."""
    monkeypatch.setattr(avistan.fitting.shard_preparation, "_ROUND_STEPS", 25)
    monkeypatch.setattr(avistan.fitting.shard_preparation, "_MOST_ROUNDS", 1)


def large_preparation_of(model: avi.Model, size: int, **options) -> LargePreparation:
    structure = model.inspect()
    assert isinstance(structure.slicing, Slicing)
    other = next(c.level for c in structure.candidates if c.level.name != structure.level.name)
    given = {"seed": 1, "num_references": 6, "max_rank": 4, "size": size, "others": (other,)} | options
    return prepare_large(model.bound, structure.level, structure.slicing, **given)


@pytest.mark.parametrize(
    ("code", "data", "size"),
    [(ANSWERS, answers_data(430, 20, 5), 97), (NESTED, nested_data(60, 7), 50)],
    ids=["answers", "nested"],
)
@pytest.mark.parametrize("parts", ["", ":full:conditional(mean+scale)"])
def test_the_mean_gradient_over_the_batches_is_that_of_all_units(code, data, size, parts, one_short_round):
    model = avi.Model(stan_code=code, data=data)
    preparation = large_preparation_of(model, size)
    method = parse_method(f"avi:mlp(8):levels{parts}")
    small = preparation.minibatches_of(method)
    family = disturbed(small.start_family(method)[0])
    assert isinstance(family.globals, LevelGlobals)
    check_mean_over_batches(model.bound, small, family, method, preparation.unit_input(method)[1], size)


def test_the_second_level_reads_all_data_whatever_the_batch(one_short_round):
    model = avi.Model(stan_code=ANSWERS, data=answers_data(430, 20, 5))
    preparation, method = large_preparation_of(model, 97), parse_method("avi:mlp(8):levels")
    small = preparation.minibatches_of(method)
    (level,), (in_shard,) = preparation.others, small.start.others
    assert in_shard.index.max() < small.start.model.dim < model.bound.dim
    family, _ = small.start_family(method)
    inputs = np.asarray(family.globals.inputs)
    np.testing.assert_array_equal(inputs, preparation.second_input(level).astype(np.float32))
    flipped = dict(model.data) | {"y": 1 - np.asarray(model.data["y"])}
    others = large_preparation_of(avi.Model(stan_code=ANSWERS, data=flipped), 97)
    assert others.second_input(others.others[0]).shape[0] == len(inputs) == 20
    # Its start is the long fit, on the whole's scale.
    place, fit = np.searchsorted(preparation.globals_index, level.index), preparation.long_fit
    own = family.globals.resolved()
    mean = np.asarray(family.frame.global_center + family.frame.global_scale * own.loc)[place]
    assert np.abs((mean - fit.mean[level.index]) / fit.sd[level.index]).mean() < 1.0


@pytest.fixture(scope="module")
def many() -> avi.Model:
    """So many students that steps are on minibatches of them, in more than 200 classes."""
    return avi.Model(stan_code=NESTED, data=nested_data(250, 33))


def on_minibatches(fit: avi.Fit) -> bool:
    return fit.gradient_evaluations == len(fit.trace.elbo) * fit.options.draws_per_step // 4


@pytest.mark.slow
def test_on_minibatches_the_elbo_is_that_of_steps_on_all_units(many, monkeypatch):
    some = many.fit(method="avi:mlp(16):levels", seed=1, steps=1500)
    assert on_minibatches(some)
    monkeypatch.setattr(avi.model, "minibatches_pay", lambda *_: False)
    every = avi.Model(stan_code=NESTED, data=many.data).fit(method="avi:mlp(16):levels", seed=1, steps=500)
    assert not on_minibatches(every)
    value, se = gap(some.evaluation, every.evaluation)
    assert abs(value) < tolerance(every.elbo, many.bound.dim)
    assert se < 0.1
    assert some.num_variational_parameters < 2000


# Distances are measured to a sample of 5000 fitted units, from which a few of the others lie far.
@pytest.mark.filterwarnings("ignore::avistan.posterior.predict.NewUnitsWarning")
@pytest.mark.slow
def test_a_fit_on_minibatches_repeats_is_saved_and_serves_new_units(many, tmp_path, one_short_round):
    method = {"method": "avi:mlp(8):levels", "seed": 3, "steps": 100, "chains": 2, "elbo_draws": 20}
    fit, again = (avi.Model(stan_code=NESTED, data=many.data).fit(**method) for _ in range(2))
    for one, other in zip(fit.chains, again.chains, strict=True):
        assert one.trace.elbo.tobytes() == other.trace.elbo.tobytes()
    assert fit.chains[0].trace.elbo.tobytes() != fit.chains[1].trace.elbo.tobytes()
    theta, log_q = fit.unconstrained_draws(5)
    np.testing.assert_array_equal(again.unconstrained_draws(5)[0], theta)
    fit.save(tmp_path / "fit")
    loaded = avi.load(tmp_path / "fit")
    assert "8250 units of S and 250 units of C" in str(loaded)
    np.testing.assert_array_equal(loaded.unconstrained_draws(5)[0], theta)
    np.testing.assert_array_equal(loaded.unconstrained_draws(5)[1], log_q)
    assert loaded.posterior(4, resample="none")["posterior"]["v"].shape == (2, 4, 250)
    own = loaded.keep_chains([0])
    mean, sd = own.marginals()
    u = own.level.index[:500, 0]
    found = own.predict(first_students(many.data, 500), 200)["predictions"]["u"].values[0].mean(axis=0)
    np.testing.assert_array_less(np.abs(found - mean[u]) / sd[u], 6 / np.sqrt(200))


def test_auto_takes_a_second_level_on_minibatches_too(many, one_short_round):
    fit = many.fit(steps=20, family="fixed", elbo_draws=20)
    assert fit.method.name == "avi:levels"
    assert "C has more than 200 units: 250" in fit.reason
    assert on_minibatches(fit)


@pytest.mark.parametrize(
    ("classes", "name", "found"),
    [
        (201, "avi:mlp(8)", "avi:mlp(8):levels"),
        (200, "avi:mlp(8)", "avi:mlp(8)"),
        (201, "avi:mlp(8):full-rank", "avi:mlp(8):full-rank"),
        (201, "avi:mlp(8):conditional", "avi:mlp(8):conditional"),
        (201, "fvi", "fvi"),
    ],
)
@pytest.mark.slow
def test_a_named_method_that_may_grow_takes_a_second_level_unless_its_name_rules_that_out(
    classes, name, found
):
    model = avi.Model(stan_code=NESTED, data=nested_data(classes, 2))
    given = {"steps": 10, "elbo_draws": 20}
    grown_fit = model.fit(method=name, family="auto", **given)
    assert ("levels" in grown_fit.method.name) == ("levels" in found)
    assert ("C has more than 200 units: 201" in grown_fit.reason) == (found != name)
    assert model.fit(method=name, **given).method.name == name


def test_without_signatures_of_the_second_level_a_named_method_keeps_its_own(monkeypatch):
    def unreadable(self, level):
        raise StructureError("no points of finite density")

    monkeypatch.setattr(Preparation, "second_input", unreadable)
    model = avi.Model(stan_code=NESTED, data=nested_data(201, 2))
    fit = model.fit(method="avi:mlp(8):full", family="auto", steps=10, elbo_draws=20)
    assert fit.second is None
    assert "no signatures: no points of finite density" in fit.reason
    with pytest.raises(StructureError, match="no points of finite density"):
        model.fit(method="avi:mlp(8):levels", steps=10)
