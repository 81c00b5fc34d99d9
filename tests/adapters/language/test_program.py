"""Programs as declarations: every type, every block, `#include`, and where an error is."""

import dataclasses
import pickle
from textwrap import dedent

import numpy as np
import pytest
import stanli

from stan_adapters.errors import Location, ProgramError
from stan_adapters.language.expressions import Unevaluable
from stan_adapters.language.program import Block, Program
from work import interpreted_lines

TYPES = [  # (Stan syntax, base, array sizes, own dimensions)
    ("int", "int", [], []),
    ("int<lower=0, upper=N>", "int", [], []),
    ("real", "real", [], []),
    ("real<lower=-1>", "real", [], []),
    ("real<offset=mu, multiplier=sigma>", "real", [], []),
    ("complex", "complex", [], []),
    ("vector[N]", "vector", [], ["N"]),
    ("vector<lower=0>[N - 1]", "vector", [], ["N - 1"]),
    ("row_vector[2 * N]", "row_vector", [], ["2 * N"]),
    ("matrix[N, K]", "matrix", [], ["N", "K"]),
    ("matrix<upper=U>[N, K]", "matrix", [], ["N", "K"]),
    ("complex_vector[N]", "complex_vector", [], ["N"]),
    ("complex_row_vector[N]", "complex_row_vector", [], ["N"]),
    ("complex_matrix[N, K]", "complex_matrix", [], ["N", "K"]),
    ("simplex[K]", "simplex", [], ["K"]),
    ("ordered[K]", "ordered", [], ["K"]),
    ("positive_ordered[K]", "positive_ordered", [], ["K"]),
    ("unit_vector[K]", "unit_vector", [], ["K"]),
    ("sum_to_zero_vector[K]", "sum_to_zero_vector", [], ["K"]),
    ("sum_to_zero_matrix[N, K]", "sum_to_zero_matrix", [], ["N", "K"]),
    ("cholesky_factor_corr[K]", "cholesky_factor_corr", [], ["K", "K"]),
    ("cholesky_factor_cov[K]", "cholesky_factor_cov", [], ["K", "K"]),
    ("cholesky_factor_cov[N, K]", "cholesky_factor_cov", [], ["N", "K"]),
    ("corr_matrix[K]", "corr_matrix", [], ["K", "K"]),
    ("cov_matrix[K]", "cov_matrix", [], ["K", "K"]),
    ("row_stochastic_matrix[N, K]", "row_stochastic_matrix", [], ["N", "K"]),
    ("column_stochastic_matrix[N, K]", "column_stochastic_matrix", [], ["N", "K"]),
    ("array[N] int<lower=1>", "int", ["N"], []),
    ("array[N, size(x)] vector[K]", "vector", ["N", "size(x)"], ["K"]),
    ("array[2] cov_matrix[K]", "cov_matrix", ["2"], ["K", "K"]),
    ("tuple(int, real)", "tuple", [], []),
    ("array[N] tuple(real<lower=0, upper=1>, array[3] vector[K])", "tuple", ["N"], []),
    ("tuple(tuple(int, simplex[K]), array[2] tuple(real, complex))", "tuple", [], []),
    ("vector<lower=(N > 2 ? 0 : -1), upper=x[1:2]'>[a.1]", "vector", [], ["a.1"]),
]


def texts(expressions):
    return [expression.text for expression in expressions]


@pytest.mark.parametrize(("syntax", "base", "array", "own"), TYPES, ids=[case[0] for case in TYPES])
@pytest.mark.parametrize("block", Block)
def test_every_type_is_read_in_every_block(block, syntax, base, array, own):
    program = Program.from_code(f"{block} {{ real before; {syntax} name; int after; }}")
    declarations = getattr(program, block.replace(" ", "_"))
    assert [declaration.name for declaration in declarations] == ["before", "name", "after"]
    declaration = declarations[1]
    assert (declaration.block, declaration.type.base) == (block, base)
    assert texts(declaration.type.array_sizes) == array
    assert texts(declaration.type.own_dims) == own
    assert texts(declaration.type.dims) == array + own
    assert str(declaration) == f"{syntax} name"
    assert program.declarations == declarations


def test_bounds_and_components_are_read():
    (a, b, c) = Program.from_code(
        "data { real<upper=U, lower=L> a; vector<offset=0, multiplier=s>[2] b; tuple(int<lower=1>, array[2] real) c; }"
    ).data
    assert (a.type.lower.text, a.type.upper.text, a.type.offset) == ("L", "U", None)
    assert (b.type.offset.text, b.type.multiplier.text, b.type.lower) == ("0", "s", None)
    assert [part.base for part in c.type.elements] == ["int", "real"]
    assert c.type.elements[0].lower.text == "1"
    assert texts(c.type.elements[1].array_sizes) == ["2"]
    assert a.type.names == {"U", "L"}
    assert b.type.names == {"s"}


def test_shape_evaluates_the_dimensions():
    (declaration,) = Program.from_code("data { array[N, 2] cov_matrix[K + 1] S; }").data
    assert declaration.type.shape({"N": 4, "K": 2}) == (4, 2, 3, 3)
    assert declaration.type.element.shape({"K": 2}) == (3, 3)
    with pytest.raises(Unevaluable, match="`K`"):
        declaration.type.shape({"N": 4})


BUSY = """\
functions {
  // data { int no1; }
  real f(real x, array[,] int k, data vector v) { real no2; return x + k[1, 1]; }
  @extern void g();
}
data {
  int<lower=0> N, M; /* parameters { real no3; } */
  vector[N] data_x; int lower;
}
transformed data {
  int T = 3, U = f({1, 2}, [3, 4]') > 0 ? max(N, M) : 5;
  { real no4; int no5 = 3; }
  for (i in 1:N) { real no6; }
  for (i in 1:N) for (j in {1, 2}) T += i;
  while (T < 10) T = T + 1;
  if (T == 1) { real no7; } else if (T > 2) print("a } brace { and // slashes", T); else { vector[2] no8; }
  profile("part") { real no9; }
  array[N] int intercepts = rep_array(1, N);
  int forty; forty = 40; intercepts[1] = 2; iffy(forty); whiled = 3; real_x[1] = 2; elsewhere[2] = 3;
  (T, U) = (1, 2);
  vector[N] real_x = data_x';
  matrix[2, 2] A = [[1, 2], [3, 4]];
  ;
}
parameters {
  real<lower=0> sigma; real mu
  ;
}
transformed parameters {
  vector[N] theta = mu + sigma * to_vector(normal_rng(rep_vector(0, N), 1));
  jacobian += log(sigma);
  real y1 = theta[1], y2;
  theta[1, 2] ^= 3; y2 = 1 / 2; // real no10;
}
model {
  real no11;
  data_x ~ normal(theta, sigma) T[0, ];
  target += normal_lpdf(data_x | theta .* 2, sigma ./ 2);
  @silent y1 ~ std_normal();
}
generated quantities {
  array[N] real y_rep = normal_rng(theta, sigma);
  tuple(real, int) pair = (1.0, 2);
}
"""


def test_only_top_level_declarations_are_reported():
    program = Program.from_code(BUSY)
    assert {block: [d.name for d in program.declarations if d.block == block] for block in Block} == {
        Block.DATA: ["N", "M", "data_x", "lower"],
        Block.TRANSFORMED_DATA: ["T", "U", "intercepts", "forty", "real_x", "A"],
        Block.PARAMETERS: ["sigma", "mu"],
        Block.TRANSFORMED_PARAMETERS: ["theta", "y1", "y2"],
        Block.GENERATED_QUANTITIES: ["y_rep", "pair"],
    }
    assert str(program.declaration("M")) == "int<lower=0> M"


def test_locations_count_from_one():
    program = Program.from_code(BUSY, name="busy")
    assert program.declaration("N").location == Location("busy.stan", 7, 16)
    assert program.declaration("M").location == Location("busy.stan", 7, 19)


def test_an_empty_program_has_no_declarations():
    assert Program.from_code("// nothing\n").declarations == ()


def test_a_byte_order_mark_is_skipped(tmp_path):
    (tmp_path / "m.stan").write_text("data { int N; }", encoding="utf-8-sig")
    assert Program.from_file(tmp_path / "m.stan").source == "data { int N; }"


def test_windows_line_ends_are_read():
    program = Program.from_code("data {\r\n  int N; // rows\r\n  real x;\r\n}\r\n")
    assert [(d.name, d.location.line) for d in program.data] == [("N", 2), ("x", 3)]


# ---- Errors ------------------------------------------------------------------------------------------------

ERRORS = {
    "missing semicolon": (
        "data {\n  int N\n  real x;\n}",
        r"m.stan:3:3: unexpected `real x;`: expected `,`, `;` or `=`\.$",
    ),
    "missing brace": ("data {\n  int N;\n", "m.stan:2:9: the program ends too early: expected .*`}`"),
    "surplus brace": ("data { int N; } }", r"m.stan:1:17: unexpected `}`: .*the end of the program"),
    "blocks out of order": ("parameters { }\ndata { }", "m.stan:2:1: unexpected `data { }`"),
    "a block twice": ("data { }\ndata { }", "m.stan:2:1: unexpected"),
    "unknown block": ("dta { }", "m.stan:1:1: unexpected `dta { }`: expected .*`data`"),
    "vector without a size": ("data { vector x; }", "m.stan:1:15: unexpected `x; }`"),
    "matrix with one size": ("data { matrix[3] x; }", "m.stan:1:16: unexpected"),
    "simplex with bounds": ("parameters { simplex<lower=0>[3] x; }", "m.stan:1:21: unexpected"),
    "statement in data": ("data { int N; N = 3; }", "m.stan:1:15: unexpected `N = 3; }`"),
    "open comment": ("data { int N; /* rows }", "m.stan:1:15: this comment has no end"),
    "open string": ('model { print("a); }', "m.stan:1:15: this string has no end"),
    "unbalanced": ("transformed data { int x = (1; }", r"m.stan:1:30: unexpected `; }`: expected `\)`\.$"),
    "a name twice": (
        "data { int N;\n real x; }\nmodel { }\ngenerated quantities { real x; }",
        "m.stan:4:29: `x` .*:2:7",
    ),
    "a bound twice": ("data { real<lower=0, lower=1> x; }", "m.stan:1:22: `lower` is given twice"),
    "unknown bound": ("data { real<low=0> x; }", "m.stan:1:13: unexpected .*`lower`"),
}


@pytest.mark.parametrize(("code", "message"), ERRORS.values(), ids=ERRORS.keys())
def test_a_program_that_cannot_be_read_says_where_and_what(code, message):
    with pytest.raises(ProgramError, match=message) as caught:
        Program.from_code(code, name="m")
    assert caught.value.location is not None


def test_an_undeclared_name_gets_the_nearest_one():
    program = Program.from_code("data { int num_rows; }")
    with pytest.raises(ProgramError, match="Did you mean `num_rows`"):
        program.declaration("numrows")
    with pytest.raises(ProgramError, match="Declared are: num_rows"):
        program.declaration("zzz")


# ---- Files and includes ------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    def write(**contents):
        for name, content in contents.items():
            path = tmp_path / name.replace("__", "/")
            path.parent.mkdir(exist_ok=True, parents=True)
            path.with_suffix(".stan").write_text(dedent(content))
        return tmp_path

    return write


def test_a_file_gives_its_name_and_path(files):
    folder = files(schools="data { int J; }")
    program = Program.from_file(folder / "schools.stan")
    assert (program.name, program.file) == ("schools", folder / "schools.stan")
    assert program.data[0].location.file == str(folder / "schools.stan")


def test_a_missing_file_gets_the_nearest_one(files):
    folder = files(schools="data { int J; }")
    with pytest.raises(ProgramError, match=r"no Stan file .*school.stan. Did you mean .*schools.stan"):
        Program.from_file(folder / "school.stan")


def test_a_programs_text_in_place_of_a_path_says_where_it_goes():
    with pytest.raises(ProgramError, match="stan_code="):
        Program.from_file("parameters { real x; }\nmodel { x ~ std_normal(); }")


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "m.stan").write_bytes(b"data { \xff }")
    with pytest.raises(ProgramError, match="can't read the Stan file"):
        Program.from_file(tmp_path / "m.stan")
    with pytest.raises(ProgramError, match="can't read the Stan file"):
        Program.from_file(tmp_path)


@pytest.mark.parametrize("directive", ["#include part.stan", '#include "part.stan"', "#include <part.stan>"])
def test_includes_are_expanded_recursively_and_keep_their_places(files, directive):
    folder = files(
        main=f"""\
        data {{
          int N;
          {directive} // the rest
          real z;
        }}
        """,
        part="// part\nreal x;\n  #include inner.stan\nreal y;",
        inner="real w;\n",
    )
    program = Program.from_file(folder / "main.stan")
    places = [
        (d.name, d.location.file.removeprefix(str(folder)), d.location.line, d.location.column)
        for d in program.data
    ]
    assert places == [
        ("N", "/main.stan", 2, 7),
        ("x", "/part.stan", 2, 6),
        ("w", "/inner.stan", 1, 6),
        ("y", "/part.stan", 4, 6),
        ("z", "/main.stan", 4, 8),
    ]
    assert "#include" not in program.source
    assert [str(d) for d in Program.from_code(program.source).data] == [str(d) for d in program.data]


def test_an_error_inside_an_include_points_into_its_file(files):
    folder = files(main="data {\n#include part.stan\n}", part="int N;\nreal x y;\n")
    with pytest.raises(ProgramError, match=r"unexpected `y;`") as caught:
        Program.from_file(folder / "main.stan")
    assert caught.value.location == Location(str(folder / "part.stan"), 2, 8)


def test_given_include_paths_come_before_the_programs_folder(files):
    folder = files(main="data {\n#include part.stan\n}", part="int beside;", lib__part="int given;")
    assert Program.from_file(folder / "main.stan").data[0].name == "beside"
    assert Program.from_file(folder / "main.stan", include_paths=[folder / "lib"]).data[0].name == "given"
    assert Program.from_file(folder / "main.stan", include_paths=str(folder / "lib")).data[0].name == "given"


def test_an_included_file_includes_from_its_own_folder_first(files):
    folder = files(
        main="data {\n#include lib/part.stan\n}",
        lib__part="#include inner.stan",
        lib__inner="int near;",
        inner="int far;",
    )
    assert Program.from_file(folder / "main.stan").data[0].name == "near"


def test_code_includes_from_the_working_directory(files, monkeypatch):
    monkeypatch.chdir(files(part="int N;"))
    assert Program.from_code("data {\n#include part.stan\n}").data[0].name == "N"


def test_a_leading_slash_is_below_the_include_paths_as_in_packages_of_r(files):
    folder = files(
        main="#include /pre/license.stan\ndata {\n#include /data/n.stan\n}",
        lib__pre__license="// MIT",
        lib__data__n="int N;\n#include /data/x.stan",
        lib__data__x="real x;",
    )
    program = Program.from_file(folder / "main.stan", include_paths=[folder / "lib"])
    assert [str(d) for d in program.data] == ["int N", "real x"]
    assert str(program.data[1].location).endswith("x.stan:1:6")


def test_a_missing_include_names_the_line_and_where_it_looked(files):
    folder = files(main="data {\n  #include gone.stan\n}")
    (folder / "lib").mkdir()
    with pytest.raises(
        ProgramError, match=rf"main.stan:2:3: .*gone.stan.*Searched: {folder}/lib, {folder}\. "
    ):
        Program.from_file(folder / "main.stan", include_paths=[folder / "lib"])


def test_a_circle_of_includes_is_refused(files):
    folder = files(main="#include a.stan", a="\n#include b.stan", b="#include a.stan")
    with pytest.raises(ProgramError, match=r"b.stan:1:1: .*includes itself: .*main.stan, .*a.stan, .*b.stan"):
        Program.from_file(folder / "main.stan")


def test_the_same_file_may_be_included_twice(files):
    folder = files(main="model {\n#include a.stan\n#include a.stan\n}", a="target += 1;")
    assert Program.from_file(folder / "main.stan").source.count("target += 1;") == 2


def test_includes_in_comments_and_strings_stay():
    code = '// #include a.stan\n/* #include b.stan */ model { print("#include c.stan"); }'
    assert Program.from_code(code).source == code


# ---- The program as a value --------------------------------------------------------------------------------


def test_without_generated_quantities_all_other_text_is_unchanged():
    code = "data { int N; } // one\ngenerated  quantities { real x = 1; { real y; } } // two \u00e9\n"
    program = Program.from_code(code).without_generated_quantities()
    assert program.source == "data { int N; } // one\n // two \u00e9\n"
    assert [d.name for d in program.declarations] == ["N"]
    assert program.without_generated_quantities() == program


def test_without_generated_quantities_the_density_is_the_same():
    code = """
    data { int<lower=0> N; vector[N] x; }
    parameters { real mu; real<lower=0> sigma; }
    model { x ~ normal(mu, sigma); mu ~ cauchy(0, 1); }
    generated quantities { real y = normal_rng(mu, sigma); }
    """
    program = Program.from_code(code)
    point = np.array([0.3, -0.7])
    results = []
    for source in (program.source, program.without_generated_quantities().source):
        model = stanli.bridgestan_model(
            stan_code=source, data='{"N": 3, "x": [0.1, 2.5, -1]}', capture_stan_prints=False
        )
        results.append((*model.log_density_gradient(point), len(model.param_names(include_gq=True))))
    (lp, gradient, names), (lp_without, gradient_without, names_without) = results
    assert lp == lp_without
    np.testing.assert_array_equal(gradient, gradient_without)
    assert (names, names_without) == (3, 2)


def test_the_digest_follows_the_source_only():
    one, two = Program.from_code("data { int N; }", name="a"), Program.from_code("data { int N; }", name="b")
    assert one.digest == two.digest
    assert one.digest != Program.from_code("data { int M; }").digest
    assert len(one.digest) == 16
    assert int(one.digest, 16) >= 0


def test_a_program_is_a_frozen_value():
    program = Program.from_code(BUSY)
    assert program == Program.from_code(BUSY)
    assert pickle.loads(pickle.dumps(program)) == program
    with pytest.raises(dataclasses.FrozenInstanceError):
        program.name = "other"


def test_the_engine_sees_the_same_variables():
    code = """
    data { int N; }
    transformed data { int K = N + 1; }
    parameters { array[2] vector[K] a; simplex[3] s; real<lower=0> b; }
    transformed parameters { real c = b * 2; { real hidden = 1; } }
    generated quantities { for (i in 1:2) { int inner = i; } matrix[2, 2] d = [[1, 2], [3, 4]]; }
    """
    program = Program.from_code(code)
    model = stanli.bridgestan_model(stan_code=program.source, data='{"N": 1}', capture_stan_prints=False)
    seen = dict.fromkeys(name.split(".")[0] for name in model.param_names(include_tp=True, include_gq=True))
    declared = (*program.parameters, *program.transformed_parameters, *program.generated_quantities)
    assert list(seen) == [declaration.name for declaration in declared]


def test_the_work_of_reading_a_program_grows_as_its_length():
    def work(size):
        lines = "".join(f"  vector<lower=0, upper=x[{i}]>[N * {i} - 1] v{i};\n" for i in range(size))
        model = "  target += f(a, {1, 2})[3];" * size
        code = f"data {{ int N; }}\nparameters {{\n{lines}}}\nmodel {{\n{model}\n}}"
        assert len(Program.from_code(code).parameters) == size
        return interpreted_lines(lambda: Program.from_code(code))

    work(1)  # builds the parser
    assert work(100) < 1.2 * 4 * work(25)


def test_a_size_that_is_an_array_has_no_value():
    declared = Program.from_code("data { int N; array[[N + 1]] int x; } model { }").declaration("x")
    with pytest.raises(Unevaluable, match="a size is an array"):
        declared.type.shape({"N": 3})
