"""A prebuilt library must be of the program that it is used for."""

import numpy as np
import pytest

from fake_engine import Toy
from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.stan_data import read_data
from stan_adapters.engine import density_check
from stan_adapters.engine.abi import Abi
from stan_adapters.engine.density_check import Difference, _up_to_parameters, compare_with_stanli
from stan_adapters.engine.engines import load
from stan_adapters.engine.instances import Instance, close_all
from stan_adapters.errors import EngineError, EngineNotice
from stan_adapters.language.program import Program

CODE = """
data { int N; vector[N] x; real sd; }
parameters { real theta; vector[N] z; }
model { theta ~ normal(0, sd); z ~ normal(theta, 1); x ~ normal(z, 1); }
generated quantities { real twice = 2 * theta; }"""
DATA = {"N": 2, "x": [0.0, 0.0], "sd": 5.0}
DENSITY = """
void toy_outputs(const Data&, const double* q, double* out) { out[0] = FACTOR * q[0]; }
std::string toy_density(const Data& data, const double* q, bool, double* lp, double* gradient) {
  const double sd = PRIOR, theta = q[0];
  *lp = CONSTANT - theta * theta / (2 * sd * sd);
  gradient[0] = -theta / (sd * sd);
  for (int i = 1; i < 3; ++i) {
    *lp -= (q[i] - theta) * (q[i] - theta) / 2 + q[i] * q[i] / 2;
    gradient[0] += q[i] - theta;
    gradient[i] = theta - 2 * q[i];
  }
  return "";
}
"""


def toy(prior: str = 'data.number("sd")', constant: str = "0.0", factor: str = "2") -> Toy:
    density = DENSITY.replace("FACTOR", factor)
    return Toy(
        density=density.replace("PRIOR", prior).replace("CONSTANT", constant),
        names=("theta", "z.1", "z.2"),
        generated=("twice",),
        name="mine_model",
    )


@pytest.fixture
def bind(toy_library, tmp_path):
    def bound(library: Toy, code: str = CODE, data: dict = DATA) -> BoundModel:
        program = Program.from_code(code, name="mine")
        path = toy_library(library, tmp_path / "other_model.so")
        return BoundModel(program, read_data(program, data), engine=str(path))

    return bound


def test_a_library_of_the_program_is_taken_whatever_its_constant(bind):
    model = bind(toy(constant="7.08"))
    assert model.engine == "other_model.so"
    lp, _ = model.log_density_gradient(np.zeros((1, 3)))
    assert lp[0] == 7.08


def test_another_prior_is_refused_with_the_parameter_that_it_moves(bind):
    with pytest.raises(EngineError, match="is of another program than mine") as caught:
        bind(toy(prior="50.0"))
    message = str(caught.value)
    assert "log densities at random points differ by" in message
    assert "`theta` (" in message
    assert "`z.1`" not in message
    assert "compiled as mine_model" in message


def test_other_generated_quantities_are_refused(bind):
    with pytest.raises(EngineError, match=r"at the same parameters its `twice` is .*, where the program has"):
        bind(toy(constant="7.08", factor="3"))


@pytest.mark.parametrize(
    ("code", "words"),
    {
        "bounds": (
            "parameters { real<lower=0> z; } model { z ~ std_normal(); }",
            "its constraints on `z` are others",
        ),
        "a narrow interval": (
            "parameters { real<lower=50, upper=60> z; } model { z ~ std_normal(); }",
            "at random points its parameters lie outside the program's constraints",
        ),
    }.values(),
)
def test_other_constraints_are_refused(bind, code, words):
    with pytest.raises(EngineError, match=words):
        bind(Toy(density=ONE_NORMAL, names=("z",)), code, {})


def test_the_comparison_is_with_the_same_data(bind):
    assert bind(toy(constant="7.08"), data=DATA | {"sd": 0.5}).dim == 3


@pytest.mark.parametrize(
    ("names", "outputs", "words"),
    {
        "another name": (["mu", "z.1", "z.2"], ["twice"], "it has no parameter `theta`"),
        "one more": (["theta", "z.1", "z.2", "tau"], ["twice"], "its parameter `tau` is not declared"),
        "another size": (
            ["theta", "z.1", "z.2", "z.3"],
            ["twice"],
            r"its parameter `z` has shape \(3,\), declared is \(2,\)",
        ),
        "another order": (
            ["z.1", "z.2", "theta"],
            ["twice"],
            "the order `z`, `theta`, declared is `theta`, `z`",
        ),
        "no generated quantities": (["theta", "z.1", "z.2"], [], "it has no output `twice`"),
        "others": (["theta", "z.1", "z.2"], ["twice", "more"], "its output `more` is not declared"),
    }.values(),
)
def test_other_names_and_sizes_are_refused(bind, monkeypatch, names, outputs, words):
    def listed(self, handle, *, transformed_parameters=False, generated_quantities=False):
        return [*names, *(outputs if generated_quantities else [])]

    monkeypatch.setattr(Abi, "names", listed)
    with pytest.raises(EngineError, match=words):
        bind(toy(constant="7.08"))


SIMPLEX = """
data { real a; }
parameters { simplex[2] p; }
model { target += (a - 1) * log(p[1]); }"""
STICKS = """
void toy_constrain(const Data&, const double* q, double* x) {  // Stan's transform before 2.37
  x[0] = 1 / (1 + std::exp(-q[0]));
  x[1] = 1 - x[0];
}
void toy_unconstrain(const Data&, const double* x, double* q) { q[0] = std::log(x[0] / x[1]); }
std::string toy_refusal(const Data&) { return ""; }
std::string toy_density(const Data& data, const double* q, bool jacobian, double* lp, double* gradient) {
  const double p = 1 / (1 + std::exp(-q[0])), power = data.number("a") - 1 + SHIFT;
  *lp = power * std::log(p) + (jacobian ? std::log(p) + std::log(1 - p) : 0);
  gradient[0] = power * (1 - p) + (jacobian ? 1 - 2 * p : 0);
  return "";
}
"""


@pytest.mark.parametrize(("shift", "same"), [("0", True), ("0.1", False)])
def test_another_transform_of_a_simplex_is_no_other_program(bind, shift, same):
    library = Toy(
        density=STICKS.replace("SHIFT", shift),
        names=("p.1", "p.2"),
        unconstrained=("p.1",),
        name="mine_model",
    )
    if same:
        assert bind(library, SIMPLEX, {"a": 3.0}).dim == 1
    else:
        with pytest.raises(EngineError, match="log densities at random points differ"):
            bind(library, SIMPLEX, {"a": 3.0})


def test_a_vector_is_no_simplex(bind):
    with pytest.raises(EngineError, match="it has 2 unconstrained coordinates, the program 1"):
        bind(Toy(density=ONE_NORMAL, names=("p.1", "p.2")), SIMPLEX, {"a": 3.0})


ONE_NORMAL = """
std::string toy_density(const Data&, const double* q, bool, double* lp, double* gradient) {
  *lp = -q[0] * q[0] / 2;
  gradient[0] = -q[0];
  return "";
}
"""
TYPES = """
data { int N; vector[N] x; }
parameters {
  real<lower=0> a; real<upper=1> b; real<lower=-1, upper=2> c; real<offset=2, multiplier=3> d; vector<lower=a>[2] v;
  ordered[3] o; positive_ordered[2] p; simplex[4] s; array[2] simplex[3] ss; unit_vector[3] u; sum_to_zero_vector[4] z;
  cholesky_factor_corr[3] L; corr_matrix[3] R; cov_matrix[2] S; cholesky_factor_cov[3, 2] C;
}
transformed parameters { real t = a + b; vector[4] m = 2 * s; }
model {
  a ~ normal(0, PRIOR); o ~ normal(0, 1); p ~ normal(0, 1); s ~ dirichlet(rep_vector(2, 4)); L ~ lkj_corr_cholesky(2);
  R ~ lkj_corr(2); S ~ wishart(4, identity_matrix(2)); to_vector(C) ~ normal(0, 1); z ~ normal(0, 1); v ~ normal(0, 1);
  x ~ normal(c + d, 1);
}
generated quantities { real g = FACTOR * a; matrix[3, 3] LL = L * L'; }"""


@pytest.mark.parametrize(
    ("prior", "factor", "difference"),
    [("5", "2", None), ("50", "2", r"differ most along `a` \("), ("5", "3", "its `g` is ")],
    ids=["the same", "another prior", "another output"],
)
def test_programs_of_all_types_and_many_rows_are_told_apart(monkeypatch, prior, factor, difference):
    """stanli in the place of a library: it has no density without the Jacobian, so that is taken off here."""
    data = {"N": 100_000, "x": [0.5] * 100_000}

    def made(prior: str, factor: str) -> tuple[Program, str]:
        program = Program.from_code(TYPES.replace("PRIOR", prior).replace("FACTOR", factor), name="mine")
        return program, read_data(program, data).to_json()

    def opened(program: Program, text: str) -> Instance:
        library = load(program, "stanli")
        return Instance(library, library.construct(text, 1))

    (program, text), (other, _) = made("5", "2"), made(prior, factor)
    library = opened(other, text)
    bare = opened(Program.from_source(_up_to_parameters(program.source) + "model {}", "bare"), text)
    plain = density_check._density

    def density(instance, theta, *, jacobian=True):
        lp, gradient = plain(instance, theta)
        return (lp if jacobian else lp - plain(bare, theta)[0]), gradient

    monkeypatch.setattr(density_check, "_density", density)
    try:
        if difference is None:
            compare_with_stanli(library, program, text, 1)
        else:
            with pytest.raises(Difference, match=difference):
                compare_with_stanli(library, program, text, 1)
    finally:
        close_all([library, bare])


REJECTING = """
std::string toy_density(const Data&, const double*, bool, double*, double*) { return "never"; }
"""


@pytest.mark.parametrize(
    ("code", "library", "words"),
    {
        "stanli can't take it": (
            "parameters { real z; } model { z ~ std_normal(); target += determinant([[exp(z)]]); }",
            Toy(density=ONE_NORMAL, names=("z",)),
            r"could not be checked, only names and sizes: .*unsupported function determinant",
        ),
        "random transformed data": (
            "transformed data { real r = normal_rng(0, 1); } parameters { real z; } model { z ~ normal(r, 1); }",
            Toy(density=ONE_NORMAL, names=("z",)),
            "may draw random numbers",
        ),
        "it rejects everything": (
            "parameters { real z; } model { z ~ std_normal(); }",
            Toy(density=REJECTING, names=("z",)),
            "too few random points",
        ),
    }.values(),
)
def test_what_could_not_be_compared_is_said_once(bind, code, library, words):
    with pytest.warns(EngineNotice, match=words):
        bind(library, code, {})
    bind(library, code, {})  # a second notice would be an error


def test_the_blocks_before_transformed_parameters_are_found_by_their_brackets():
    source = """functions { real parameters_of(real x) { return x; } }
    data { int N; } // parameters {
    /* parameters { */ transformed data { print("parameters { }"); }
    parameters { real z; vector<lower=0>[{1, 2}[1]] w; }
    transformed parameters { real y = z; }
    model { }"""
    assert _up_to_parameters(source).rstrip().endswith("vector<lower=0>[{1, 2}[1]] w; }")
    assert "transformed parameters" not in _up_to_parameters(source)
    assert _up_to_parameters("model { }") == "model { }"
