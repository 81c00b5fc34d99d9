"""`BoundModel`: densities in batches and threads, constrained draws, and a handle that is freed exactly once."""

import gc
import threading
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from stan_adapters.bound import bound_model
from stan_adapters.bound import bound_model as binding
from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.stan_data import read_data
from stan_adapters.engine.abi import Abi
from stan_adapters.errors import BindingError, UnsupportedError
from stan_adapters.language.program import Program

HIERARCHICAL = """
data { int N; vector[N] x; }
parameters { real theta; real<lower=0> sigma; vector[N] z; }
transformed parameters { vector[N] shifted = theta + z; }
model { theta ~ std_normal(); sigma ~ normal(0, 1); z ~ normal(0, sigma); x ~ normal(shifted, 1); }
generated quantities { vector[N] x_new; for (n in 1:N) x_new[n] = normal_rng(shifted[n], 1); int count = 3; }"""
DATA = {"N": 4, "x": [0.5, -1.0, 2.0, 0.1]}


def bind(code: str = HIERARCHICAL, data: dict | None = None) -> BoundModel:
    program = Program.from_code(code, name="mine")
    return BoundModel(program, read_data(program, DATA if data is None else data))


@pytest.fixture
def model():
    with bind() as model:
        yield model


@pytest.fixture
def handles(monkeypatch) -> Counter:
    """How often each handle was constructed (+1) and destructed (-1)."""
    gc.collect()  # what other tests left
    alive: Counter = Counter()
    construct, destruct = Abi.construct, Abi.destruct

    def counting_construct(self, data_json, seed):
        handle, printed = construct(self, data_json, seed)
        alive[handle] += 1
        alive["constructed"] += 1
        return handle, printed

    def counting_destruct(self, handle):
        assert alive[handle] == 1
        alive[handle] -= 1
        alive["destructed"] += 1
        destruct(self, handle)

    monkeypatch.setattr(Abi, "construct", counting_construct)
    monkeypatch.setattr(Abi, "destruct", counting_destruct)
    return alive


def points(model: BoundModel, count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, model.dim))


# ---- life


def test_every_handle_is_freed_exactly_once_by_close(handles):
    model = bind()
    model.handles(3)
    model.constrain(points(model, 2))
    model.close()
    model.close()
    assert model.closed
    assert (
        handles["constructed"] == handles["destructed"] == 4
    )  # three for threads, one for generated quantities


def test_leaving_a_with_block_frees_also_after_an_error(handles):
    with pytest.raises(ZeroDivisionError), bind():
        raise ZeroDivisionError
    assert handles["constructed"] == handles["destructed"] == 1


def test_an_object_that_is_dropped_frees_its_handles(handles):
    model = bind()
    model.constrain(points(model, 1))
    del model
    gc.collect()
    assert handles["constructed"] == handles["destructed"] == 2


USES = {
    "log_density_gradient": lambda model: model.log_density_gradient(np.zeros(6)),
    "why_rejected": lambda model: model.why_rejected(np.zeros(6)),
    "handles": lambda model: model.handles(2),
    "engine_info": lambda model: model.engine_info,
    "constrain": lambda model: model.constrain(np.zeros((1, 6))),
    "constrain parameters": lambda model: model.constrain(
        np.zeros((1, 6)), transformed_parameters=False, generated_quantities=False
    ),
    "unconstrain": lambda model: model.unconstrain({"theta": 0, "sigma": 1, "z": np.zeros(4)}),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
def test_a_use_after_close_is_an_error(use):
    model = bind()
    model.close()
    with pytest.raises(BindingError, match="the bound model of mine is closed: bind the program again"):
        use(model)


def test_what_it_is_can_be_read_also_after_close(model):
    model.close()
    assert repr(model) == "BoundModel(mine, dim=6, engine=stanli, closed)"
    assert model.layout["z"].offset == 2


# ---- densities


def test_the_density_is_stans_with_the_jacobian(model):
    theta, log_sigma, *z = point = np.array([0.3, -0.2, 0.1, 0.2, -0.3, 0.4])
    sigma, z = np.exp(log_sigma), np.array(z)
    expected = -(theta**2) / 2 - sigma**2 / 2 - (z**2 / sigma**2 / 2 + log_sigma).sum() + log_sigma
    expected -= ((np.array(DATA["x"]) - theta - z) ** 2 / 2).sum()
    lp, gradient = model.log_density_gradient(point)
    assert lp == pytest.approx(expected, rel=1e-12)
    steps = 1e-5 * np.eye(6)
    numeric = [
        (model.log_density_gradient(point + h)[0] - model.log_density_gradient(point - h)[0]) / 2e-5
        for h in steps
    ]
    np.testing.assert_allclose(gradient, numeric, rtol=1e-6, atol=1e-8)


def test_one_point_and_a_batch_of_one_agree(model):
    theta = points(model, 1)
    lp, gradient = model.log_density_gradient(theta)
    single_lp, single_gradient = model.log_density_gradient(theta[0])
    assert (lp.shape, gradient.shape, np.shape(single_lp)) == ((1,), (1, 6), ())
    assert lp[0] == single_lp
    np.testing.assert_array_equal(gradient[0], single_gradient)


def test_a_batch_in_several_threads_gives_the_same_bytes(model, monkeypatch):
    theta = points(model, 101)
    monkeypatch.setattr(bound_model, "_SECONDS_PER_THREAD", 1e-9)  # each is worth a thread
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    alone = model.log_density_gradient(theta)
    monkeypatch.setattr("os.cpu_count", lambda: 5)
    together = model.log_density_gradient(theta)
    assert len(model._density.handles) == 5
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_batch_that_is_done_before_a_thread_has_begun_has_none_of_its_own(model, monkeypatch):
    def refused(workers, process):
        raise AssertionError(f"{workers} threads for two gradients of some microseconds")

    monkeypatch.setattr(bound_model, "_threads", refused)
    monkeypatch.setattr(model, "_gradient_seconds", 5e-6)
    model.log_density_gradient(points(model, 50))
    monkeypatch.setattr(model, "_gradient_seconds", 1e-3)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    with pytest.raises(AssertionError, match="2 threads"):
        model.log_density_gradient(points(model, 50))


def test_callers_in_several_threads_get_their_own_numbers(model):
    theta = points(model, 40)
    expected = model.log_density_gradient(theta)
    found = {}

    def work(number: int) -> None:
        found[number] = [model.log_density_gradient(theta) for _ in range(20)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for lp, gradient in (result for results in found.values() for result in results):
        np.testing.assert_array_equal(lp, expected[0])
        np.testing.assert_array_equal(gradient, expected[1])
    assert len(found) == 4


def test_a_rejected_point_is_minus_infinity_with_a_zero_gradient_and_has_a_reason():
    code = 'parameters { vector[2] z; } model { if (z[1] > 1) reject("z is ", z[1]); z ~ std_normal(); }'
    with bind(code, {}) as model:
        lp, gradient = model.log_density_gradient([[0.0, 0.5], [3.0, 0.5], [0.5, np.nan], [0.5, np.inf]])
        assert lp.tolist()[1:] == [-np.inf] * 3
        assert gradient[1:].tolist() == [[0.0, 0.0]] * 3
        assert gradient[0].tolist() == [0.0, -0.5]
        assert "z is 3" in model.why_rejected([3.0, 0.5])
        assert model.why_rejected([0.0, 0.5]) == ""


@pytest.mark.parametrize("shape", [(5,), (2, 7), (1, 2, 6), ()])
def test_points_of_another_shape_are_refused_with_both_shapes(model, shape):
    with pytest.raises(BindingError, match=r"mine have shape \(6,\) or \(S, 6\), got \("):
        model.log_density_gradient(np.zeros(shape))


def test_callers_in_c_find_what_they_need(model):
    assert model.log_density_gradient_address != model.free_error_address != 0
    assert len(model.handles(2)) in (1, 2)
    assert model.handles(1)[0] == model.handles(2)[0]
    assert "STAN_THREADS=true" in model.engine_info


# ---- constrained draws


def test_constrained_draws_have_the_declared_shapes(model):
    draws, failed = model.constrain(points(model, 5))
    assert failed == 0
    assert {name: value.shape for name, value in draws.items()} == {
        "theta": (5,),
        "sigma": (5,),
        "z": (5, 4),
        "shifted": (5, 4),
        "x_new": (5, 4),
        "count": (5,),
    }
    np.testing.assert_allclose(draws["sigma"], np.exp(points(model, 5)[:, 1]))
    np.testing.assert_array_equal(draws["shifted"], draws["theta"][:, None] + draws["z"])


def test_generated_quantities_are_seeded(model):
    one, two, other = (model.constrain(points(model, 3), seed=seed)[0]["x_new"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert (one != other).all()


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"generated_quantities": False}, {"theta", "sigma", "z", "shifted"}),
        ({"generated_quantities": False, "transformed_parameters": False}, {"theta", "sigma", "z"}),
        ({"transformed_parameters": False}, {"theta", "sigma", "z", "x_new", "count"}),
    ],
)
def test_outputs_can_be_left_out(model, options, names):
    assert set(model.constrain(points(model, 2), **options)[0]) == names


def test_a_draw_that_stan_rejects_is_nan_and_counted():
    code = """
    parameters { real z; } model { z ~ std_normal(); }
    generated quantities { if (z > 1) reject("too large"); real twice = 2 * z; }"""
    with bind(code, {}) as model:
        draws, failed = model.constrain([[0.5], [2.0]])
        assert failed == 1
        np.testing.assert_array_equal(draws["twice"], [1.0, np.nan])


def test_outputs_that_stanli_drops_are_an_error_and_the_rest_still_works(monkeypatch):
    monkeypatch.setattr("stan_adapters.engine.instances.bridgestan_sources", lambda: None)
    code = """
    parameters { simplex[3] p; }
    transformed parameters { real first = p[1]; }
    model { p ~ dirichlet([2, 2, 2]'); }
    generated quantities { array[3] int counts = multinomial_rng(p, 5); }"""
    with bind(code, {}) as model:
        assert np.isfinite(model.log_density_gradient(np.zeros(2))[0])
        with pytest.raises(UnsupportedError, match=r'multinomial_rng(?s:.*)engine="bridgestan"'):
            model.constrain(np.zeros((1, 2)))
        draws, _ = model.constrain(np.zeros((1, 2)), generated_quantities=False)
        assert draws["first"] == pytest.approx(1 / 3)


def test_generated_quantities_of_another_engine_see_the_same_constrained_values(monkeypatch):
    code = """
    parameters { simplex[3] p; real<lower=0> s; }
    model { p ~ dirichlet([2, 2, 2]'); s ~ normal(0, 1); }
    generated quantities { vector[3] twice = 2 * p; }"""
    plain, unconstrain, moved = binding.construct, Abi.unconstrain, []

    def construct(program, engine, *arguments, **options):
        instance = plain(program, engine, *arguments, **options)
        if program.generated_quantities:  # as if stanli lacked a function there
            instance.library = replace(instance.library, engine="bridgestan")
        return instance

    def counting(self, handle, columns, dim):
        moved.append(len(columns))
        return unconstrain(self, handle, columns, dim)

    monkeypatch.setattr(binding, "construct", construct)
    monkeypatch.setattr(Abi, "unconstrain", counting)
    with bind(code, {}) as model:
        theta = points(model, 4)
        parameters, _ = model.constrain(theta, generated_quantities=False)
        assert moved == []
        draws, failed = model.constrain(theta)
        assert (moved, failed) == ([4], 0)
        np.testing.assert_allclose(draws["p"], parameters["p"], rtol=1e-12)
        np.testing.assert_allclose(draws["twice"], 2 * parameters["p"], rtol=1e-12)


def test_outputs_without_elements_are_there_with_their_shape():
    code = """
    data { int N; } parameters { real a; array[N] vector[3] z; }
    transformed parameters { matrix[N, 2] m; } model { a ~ std_normal(); }
    generated quantities { array[N] int k; }"""
    with bind(code, {"N": 0}) as model:
        draws, _ = model.constrain(np.zeros((2, 1)))
        assert {name: value.shape for name, value in draws.items()} == {
            "a": (2,),
            "z": (2, 0, 3),
            "m": (2, 0, 2),
            "k": (2, 0),
        }


def test_constrain_and_unconstrain_are_inverse_for_every_layout():
    code = """
    parameters {
      array[2] vector[3] a; matrix[2, 3] m; array[2] matrix[3, 2] b; array[3] simplex[4] s;
      cov_matrix[3] c; array[2] cholesky_factor_corr[3] l; vector<lower=0, upper=1>[4] u; sum_to_zero_vector[4] w;
    }"""
    with bind(code, {}) as model:
        theta = points(model, 3)
        draws, _ = model.constrain(theta)
        np.testing.assert_allclose(model.unconstrain_draws(draws), theta, atol=1e-9)
        one = {name: value[1] for name, value in draws.items()}
        np.testing.assert_allclose(model.unconstrain(one), theta[1], atol=1e-9)


def test_unconstrain_names_what_is_missing_unknown_or_outside(model):
    full = {"theta": 0.0, "sigma": 1.0, "z": np.zeros(4)}
    with pytest.raises(BindingError, match=r"missing \['sigma'\], unknown \['sigm'\]"):
        model.unconstrain({"theta": 0.0, "sigm": 1.0, "z": np.zeros(4)})
    with pytest.raises(BindingError, match="sigma"):
        model.unconstrain(full | {"sigma": -1.0})
    with pytest.raises(BindingError, match=r"z has shape \(3,\) a draw, the program declares \(4,\)"):
        model.unconstrain(full | {"z": np.zeros(3)})
    with pytest.raises(BindingError, match="no entry 'z'"):
        model.unconstrain_draws({"theta": np.zeros(2), "sigma": np.ones(2)})


def test_a_program_without_parameters_is_bound_too():
    with bind("generated quantities { real noise = normal_rng(0, 1); }", {}) as model:
        assert model.dim == 0
        assert model.unconstrain({}).shape == (0,)
        assert model.constrain(np.zeros((3, 0)))[0]["noise"].shape == (3,)


def test_the_seed_reaches_transformed_data():
    code = """
    transformed data { real shift = normal_rng(0, 1); }
    parameters { real z; } model { z ~ normal(shift, 1); }"""
    program = Program.from_code(code)
    data = read_data(program, {})
    gradients = []
    for seed in (1, 1, 2):
        with BoundModel(program, data, seed=seed) as model:
            gradients.append(model.log_density_gradient(np.zeros(1))[1][0])
    assert gradients[0] == gradients[1] != gradients[2]


def test_what_a_program_prints_stays_off_standard_output(capfd):
    with bind('parameters { real z; } model { print("here"); z ~ std_normal(); }', {}) as model:
        model.log_density_gradient(np.zeros((20, 1)))
    assert capfd.readouterr().out == ""
