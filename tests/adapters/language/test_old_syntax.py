"""Programs of Stan before 2.33: what they say in today's syntax, on the same lines, with the same density."""

from pathlib import Path

import numpy as np
import pytest

from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.stan_data import read_data
from stan_adapters.errors import EngineError, Location, ProgramError
from stan_adapters.language.program import Program

ROOT = Path(__file__).resolve().parents[3]
MODERN = sorted([*ROOT.glob("tests/structure/*.stan"), *ROOT.glob("stan_models/*/*.stan")])

# ---- Single pieces -----------------------------------------------------------------------------------------

DATA = "data { int N; array[N] int n; vector[N] y; real a; matrix[N, N] m; }"
DECLARED = {
    "int x[3];": "array[3] int x;",
    "real<lower=0> x[N, 2];": "array[N, 2] real<lower=0> x;",
    "vector<lower=0>[N] z[N];": "array[N] vector<lower=0>[N] z;",
    "cholesky_factor_cov[5, 6] mu[2, 3, 4];": "array[2, 3, 4] cholesky_factor_cov[5, 6] mu;",
    "simplex[N] p[max(n)];": "array[max(n)] simplex[N] p;",
    "int x[2] = {1, 2};": "array[2] int x = {1, 2};",
    "int x[2], k, z[N, 3];": "array[2] int x; int k; array[N, 3] int z;",
    "array[4] int x[2];": "array[2, 4] int x;",
    "real x[if_else(N > 1, N, 1)];": "array[((N > 1) ? (N) : (1))] real x;",
    "real x[N // rows\n ];": "array[N] real x\n;",
}
STATEMENTS = {
    "b <- 3;": "b = 3;",
    "b<-a<-3;": "b=a<-3;",
    "if (a <- 1) b <- -1;": "if (a <- 1) b = -1;",
    "if (N > 1) v[1] <- 2; else v <- y;": "if (N > 1) v[1] = 2; else v = y;",
    "increment_log_prob(normal_log(y, a, 1));": "target += (normal_lpdf(y | a, 1));",
    "lp__ <- lp__ + a - 2 * fabs(a);": "target += 0 + a - 2 * abs(a);",
    "b = get_lp() + lp__;": "b = target() + target();",
    "b = poisson_log(n, a) + binomial_logit_log(n, n, a);": "b = poisson_lpmf(n | a) + binomial_logit_lpmf(n | n, a);",
    "n ~ poisson_log(a);": "n ~ poisson_log(a);",
    "y ~ normal_lpdf(a, 1); n ~ poisson_log_log(a); y ~ normal_log(a, 1);": (
        "y ~ normal(a, 1); n ~ poisson_log(a); y ~ normal(a, 1);"
    ),
    "b = neg_binomial_2_log(n, a, a) + poisson_log_log(n, a);": (
        "b = neg_binomial_2_lpmf(n | a, a) + poisson_log_lpmf(n | a);"
    ),
    "b = normal_cdf_log(a, 0, 1) - normal_ccdf_log(a, 0, 1);": "b = normal_lcdf(a | 0, 1) - normal_lccdf(a | 0, 1);",
    "b = normal_cdf(a, 0, 1) + normal_cdf(a | 0, 1);": "b = normal_cdf(a | 0, 1) + normal_cdf(a | 0, 1);",
    "b = normal_lpdf(y, 0, 1) + std_normal_log(a);": "b = normal_lpdf(y | 0, 1) + std_normal_lpdf(a | );",
    "b = if_else(a > 0, multiply_log(a, a), if_else(N, 1, a));": (
        "b = ((a > 0) ? (lmultiply(a, a)) : (((N) ? (1) : (a))));"
    ),
    'if (N > 1) reject("no", N) else reject("yes") b = 1; print(b)': (
        'if (N > 1) reject("no", N); else reject("yes"); b = 1; print(b);'
    ),
    "b = binomial_coefficient_log(N, n[1]);": "b = lchoose(N, n[1]);",
    "b = fabs(N - 6) / 2 + fabs(sum(n)) / 2 + fabs(-(N)) / 2;": (
        "b = abs(1.0 * (N - 6)) / 2 + abs(1.0 * (sum(n))) / 2 + abs(1.0 * (-(N))) / 2;"
    ),
    "b = fabs(a) + fabs(n[1]) / 2 + fabs(m[1, N]);": "b = abs(a) + abs(1.0 * (n[1])) / 2 + abs(m[1, N]);",
    "if (a) b = 1; while (N) b = y[1] ? 2 : 3;": "if (((a) != 0)) b = 1; while (N) b = ((y[1]) != 0) ? 2 : 3;",
    "b = (a && N) || !m[1, 2];": "b = (((a) != 0) && N) || !((m[1, 2]) != 0);",
    'print("a <- b # c", a); # says': 'print("a <- b # c", a); // says',
    "## a 'comment' with \"\n b = 1; // # as it is\n": "//# a 'comment' with \"\n b = 1; // # as it is\n",
    "b = normal_log(y, // mean, sd\n a, 1);": "b = normal_lpdf(y | // mean, sd\n a, 1);",
}


@pytest.mark.parametrize(("old", "modern"), DECLARED.items(), ids=DECLARED)
def test_arrays_are_declared_in_front(old, modern):
    assert Program.from_code(f"{DATA} model {{ {old} }}").source == f"{DATA} model {{ {modern} }}"


@pytest.mark.parametrize(("old", "modern"), STATEMENTS.items(), ids=STATEMENTS)
def test_statements_are_read_as_they_were_meant(old, modern):
    head = f"{DATA} model {{ real b; vector[N] v;"
    assert Program.from_code(f"{head} {old}\n }}").source == f"{head} {modern}\n }}"


def test_functions_of_arrays_and_densities_of_the_program_are_renamed():
    old = (
        "functions { real[,] f(int[] n, vector[] v, data real[,] x) { return x; } vector g(int[ , ] n); "
        "real skew_log(real y, real a) { return normal_log(y, a, 1); } "
        "real pick_log(int[] n, real a) { return a; } real other_log(real y) { return y; } } "
        "parameters { real y; } model { y ~ skew(1); increment_log_prob(skew_log(y, 2) + other_log(y)); "
        "{ int n[1]; n ~ pick(y); } }"
    )
    modern = (
        "functions { array[,] real f(array[] int n, array[] vector v, data array[,] real x) { return x; } "
        "vector g(array[,] int n); real skew_lpdf(real y, real a) { return normal_lpdf(y | a, 1); } "
        "real pick_lpmf(array[] int n, real a) { return a; } real other_log(real y) { return y; } } "
        "parameters { real y; } model { y ~ skew(1); target += (skew_lpdf(y | 2) + other_log(y)); "
        "{ array[1] int n; n ~ pick(y); } }"
    )
    assert Program.from_code(old).source == modern


def test_sparse_products_that_rstanarm_computes_in_cpp_count_from_0():
    code = (
        "functions { vector csr_matrix_times_vector2(int m, int n, vector w,\n  int[] v, int[] u, vector b); } "
        "data { vector[3] w; int v[3]; int u[3]; } parameters { vector[2] b; } "
        "model { target += dot_product([1, 10], csr_matrix_times_vector2(2, 2, w, v, u, b)); }"
    )
    _, gradient = density(code, {"w": [2.0, 3.0, 4.0], "v": [1, 0, 1], "u": [0, 1, 3]})  # [[0, 2], [3, 4]]
    np.testing.assert_allclose(gradient, [30, 42], rtol=1e-12)


def test_least_squares_that_rstanarm_computes_in_cpp_are_computed():
    code = (
        "functions { vector CODOLS(matrix X, vector y); // in C++\n } data { matrix[3, 2] X; vector[3] y; } "
        "transformed data { vector[2] b = CODOLS(X, y); } parameters { vector[2] c; } "
        "model { target += dot_product(b, c); }"
    )
    x, y = np.array([[1, 2], [1, 0], [1, -1.5]]), np.array([1, 2, 4.0])
    _, gradient = density(code, {"X": x.tolist(), "y": y.tolist()})
    np.testing.assert_allclose(gradient, np.linalg.lstsq(x, y)[0], rtol=1e-10)


def test_variables_with_names_that_are_words_of_the_language_now_get_an_underscore():
    old = (
        "functions { real f(real lower, real offset) { return lower + offset; } } "
        "data { int upper; vector<lower=0, upper=upper>[2] offset; } parameters { real<lower=0, upper=upper> x; } "
        "model { real multiplier[upper]; multiplier[1] = 2; "
        "for (lower in 1:upper) target += f(multiplier[1] * x, offset[1]); }"
    )
    modern = (
        "functions { real f(real lower_, real offset_) { return lower_ + offset_; } } "
        "data { int upper_; vector<lower=0, upper=upper_>[2] offset_; } parameters { real<lower=0, upper=upper_> x; } "
        "model { array[upper_] real multiplier_; multiplier_[1] = 2; "
        "for (lower_ in 1:upper_) target += f(multiplier_[1] * x, offset_[1]); }"
    )
    assert Program.from_code(old).source == modern
    data = {"upper": 3, "offset": [1.0, 2.0]}
    (lp, gradient), (expected_lp, expected) = (
        density(old, data),
        density(modern, {f"{k}_": v for k, v in data.items()}),
    )
    assert (lp, gradient) == (expected_lp, expected)
    assert gradient[0] != 0


def test_functions_of_the_program_keep_names_that_stan_once_had():
    code = (
        "functions { real fabs(real x) { return x; } real if_else(int a, real b, real c) { return b; } } "
        "parameters { real x; } model { target += if_else(1, fabs(x), x); }"
    )
    assert Program.from_code(code).source == code


# ---- Whole programs against modern twins -------------------------------------------------------------------

TWINS = {
    "halves": (
        """data { int N; real y[N]; }
        transformed data { real h; h <- fabs(N - 6) / 2; }
        parameters { real mu; real lower; }
        model {
          y ~ normal(mu + h, 1);
          lower ~ normal(0, 1);
          increment_log_prob(if_else(mu > 0, lower, mu) + if_else(lower > 0 , mu, lower) + fabs(N - 4) / 2 * mu);
        }""",
        """data { int N; array[N] real y; }
        transformed data { real h = abs(N - 6) / 2.0; }
        parameters { real mu; real lower_; }
        model {
          y ~ normal(mu + h, 1);
          lower_ ~ normal(0, 1);
          target += (mu > 0 ? lower_ : mu) + (lower_ > 0 ? mu : lower_) + abs(N - 4) / 2.0 * mu;
        }""",
        {"N": 1, "y": [1.0]},
    ),
    "a hierarchical model of 2013": (
        """
        # eight schools
        data { int<lower=0> J; real y[J]; real<lower=0> sigma[J]; }
        parameters { real mu; real<lower=0> tau; real eta[J]; }
        transformed parameters { real theta[J]; for (j in 1:J) theta[j] <- mu + tau * eta[j]; }
        model { lp__ <- lp__ + normal_log(eta, 0, 1); y ~ normal(theta, sigma); }
        """,
        """
        data { int<lower=0> J; array[J] real y; array[J] real<lower=0> sigma; }
        parameters { real mu; real<lower=0> tau; array[J] real eta; }
        transformed parameters { array[J] real theta; for (j in 1:J) theta[j] = mu + tau * eta[j]; }
        model { target += normal_lpdf(eta | 0, 1); y ~ normal(theta, sigma); }
        """,
        {"J": 3, "y": [28.0, 8, -3], "sigma": [15.0, 10, 16]},
    ),
    "zero inflation, truncation and functions of the program": (
        """
        functions {
          real zip_log(int y, real p, real l) {
            return if_else(y == 0, log_sum_exp(log(p), log1m(p) + poisson_log(0, l)), log1m(p) + poisson_log(y, l));
          }
          void prior_lp(real[] x) { increment_log_prob(-fabs(x[1])); x ~ normal(0, 2); }
          real[] shifted(real[] x, int[] k) { real z[size(x)]; for (i in 1:size(x)) z[i] <- x[i] + k[i]; return z; }
        }
        data { int N; int y[N]; vector[2] c[N]; }
        parameters { real<lower=0,upper=1> p; real b[2]; real<lower=0> s; }
        model {
          real z[2]; int k[2];
          k[1] <- 1; k[2] <- -1;
          z <- shifted(b, k);
          prior_lp(z);
          s ~ cauchy(0, 1) T[0,];
          for (n in 1:N) {
            y[n] ~ zip(p, exp(b[1] + b[2] * c[n, 1]));
            increment_log_prob(normal_ccdf_log(c[n, 2], b[1], s) + multiply_log(2, s) + log(normal_cdf(b[2], 0, s)));
          }
          if (s) lp__ <- lp__ + binomial_coefficient_log(5, 2) * s;
        }
        """,
        """
        functions {
          real zip_lpmf(int y, real p, real l) {
            if (y == 0) return log_sum_exp(log(p), log1m(p) + poisson_lpmf(0 | l));
            return log1m(p) + poisson_lpmf(y | l);
          }
          void prior_lp(array[] real x) { target += -abs(x[1]); x ~ normal(0, 2); }
        }
        data { int N; array[N] int y; array[N] vector[2] c; }
        parameters { real<lower=0,upper=1> p; array[2] real b; real<lower=0> s; }
        model {
          prior_lp({b[1] + 1, b[2] - 1});
          s ~ cauchy(0, 1) T[0,];
          for (n in 1:N) {
            y[n] ~ zip(p, exp(b[1] + b[2] * c[n, 1]));
            target += normal_lccdf(c[n, 2] | b[1], s) + lmultiply(2, s) + log(normal_cdf(b[2] | 0, s));
          }
          target += lchoose(5, 2) * s;
        }
        """,
        {"N": 3, "y": [0, 2, 1], "c": [[0.5, 1], [-1, 0.3], [2, -0.5]]},
    ),
    "a Gaussian process": (
        """
        data { int N; real x[N]; vector[N] y; }
        parameters { real<lower=0> r; real<lower=0> a; }
        model {
          matrix[N, N] K;
          K <- cov_exp_quad(x, a, r) + diag_matrix(rep_vector(0.1, N));
          y ~ multi_normal(rep_vector(0, N), K);
          r ~ inv_gamma(5, 5);
        }
        """,
        """
        data { int N; array[N] real x; vector[N] y; }
        parameters { real<lower=0> r; real<lower=0> a; }
        model {
          matrix[N, N] K = gp_exp_quad_cov(x, a, r) + diag_matrix(rep_vector(0.1, N));
          y ~ multi_normal(rep_vector(0, N), K);
          r ~ inv_gamma(5, 5);
        }
        """,
        {"N": 3, "x": [0.0, 1, 2.5], "y": [0.1, 0.4, -0.3]},
    ),
    "a differential equation": (
        """
        functions { real[] decay(real t, real[] y, real[] theta, real[] x_r, int[] x_i) {
          real d[1]; d[1] <- -theta[1] * y[1]; return d; } }
        data { int T; real ts[T]; real y[T]; }
        transformed data { real x_r[0]; int x_i[0]; }
        parameters { real<lower=0> k; }
        model {
          real theta[1]; real y0[1]; real z[T, 1];
          theta[1] <- k; y0[1] <- 10;
          z <- integrate_ode_bdf(decay, y0, 0.0, ts, theta, x_r, x_i);
          for (t in 1:T) y[t] ~ normal(z[t, 1], 1);
        }
        """,
        """
        functions { vector decay(real t, vector y, real k) { return -k * y; } }
        data { int T; array[T] real ts; array[T] real y; }
        parameters { real<lower=0> k; }
        model {
          array[T] vector[1] z = ode_bdf_tol(decay, [10]', 0.0, ts, 1e-10, 1e-10, 100000000, k);
          for (t in 1:T) y[t] ~ normal(z[t, 1], 1);
        }
        """,
        {"T": 3, "ts": [0.5, 1, 2], "y": [6.0, 4, 1]},
    ),
}


def density(code: str, data: dict) -> tuple[float, np.ndarray]:
    program = Program.from_code(code)
    with BoundModel(program, read_data(program, data), engine="stanli") as model:
        points = np.random.default_rng(1).uniform(-0.7, 0.7, size=(2, model.dim))
        (one, gradient), (other, _) = (model.log_density_gradient(point) for point in points)
        return float(one - other), gradient


@pytest.mark.parametrize("name", TWINS)
def test_an_old_program_has_the_density_of_its_modern_twin(name):
    old, modern, data = TWINS[name]
    assert Program.from_code(old).is_old
    assert not Program.from_code(modern).is_old
    (lp, gradient), (expected_lp, expected_gradient) = density(old, data), density(modern, data)
    tolerance = 1e-8 if "differential" in name else 1e-12  # of the solver
    assert lp == pytest.approx(expected_lp, rel=tolerance)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=tolerance)


# ---- Places and errors -------------------------------------------------------------------------------------


def test_lines_and_places_are_those_of_the_old_program(tmp_path):
    (tmp_path / "part.stan").write_text("real<lower=0> s[N,\n  2]; # two\nint k[3];\n")
    (tmp_path / "old.stan").write_text(
        "data {\n  int N;\n#include part.stan\n  vector[N] v[2];  real z;\n}\nmodel {\n  increment_log_prob(z);\n}\n"
    )
    program = Program.from_file(tmp_path / "old.stan")
    places = {d.name: (Path(d.location.file).name, d.location.line, d.location.column) for d in program.data}
    assert places == {
        "N": ("old.stan", 2, 7),
        "s": ("part.stan", 1, 15),
        "k": ("part.stan", 3, 5),
        "v": ("old.stan", 4, 13),
        "z": ("old.stan", 4, 25),
    }
    assert str(program.declaration("s")) == "array[N, 2] real<lower=0> s"
    assert program.has_includes
    expanded = "data {\n  int N;\nreal<lower=0> s[N,\n  2]; # two\nint k[3];\n\n  vector[N] v[2];"
    assert program.source.count("\n") == expanded.count("\n") + 5


def test_the_compilers_words_are_about_the_users_line():
    code = "parameters {\n  real x[2];\n}\nmodel {\n  x <- 3;\n}"
    program = Program.from_code(code, name="old")
    with pytest.raises(EngineError, match=r"old.stan, line 5, column 2"):
        BoundModel(program, read_data(program, None), engine="stanli")


ERRORS = {
    "no semicolon": (
        "data {\n  int x[2];\n}\nmodel {\n  x <- 3\n}",
        Location("m.stan", 6, 1),
        "unexpected `}`",
    ),
    "lp__ is set": (
        "parameters { real x; }\nmodel { lp__ <- x; }",
        Location("m.stan", 2, 9),
        r"`target \+= ",
    ),
    "lp__ is set anew": ("model {\n lp__ <- 2 * lp__; }", Location("m.stan", 2, 2), r"`target \+= "),
    "an old comment that does not end": (
        "model { # a\n /* b }",
        Location("m.stan", 2, 2),
        "comment has no end",
    ),
}


@pytest.mark.parametrize(("code", "place", "message"), ERRORS.values(), ids=ERRORS)
def test_an_old_program_with_an_error_says_where(code, place, message):
    with pytest.raises(ProgramError, match=message) as caught:
        Program.from_code(code, name="m")
    assert caught.value.location == place


def test_modern_programs_are_left_byte_for_byte():
    assert len(MODERN) > 50
    for file in MODERN:
        program = Program.from_file(file)
        assert program.source == file.read_text(encoding="utf-8"), file
        assert not program.is_old


def test_a_saved_source_is_read_as_it_was_saved():
    source = Program.from_code("data { real x[2]; } # end\n").source
    assert source == "data { array[2] real x; } // end\n"
    assert Program.from_source(source, "saved").source == source
