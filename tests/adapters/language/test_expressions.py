"""Sizes and bounds: canonical text, free names, and values with Stan's semantics."""

import math
import pickle

import numpy as np
import pytest
import stanli

from stan_adapters.data.stan_data import read_data
from stan_adapters.errors import ProgramError
from stan_adapters.language.expressions import Expression, Unevaluable
from stan_adapters.language.program import Program

ENV = {
    "N": 7,
    "M": np.int64(3),
    "flag": True,
    "x": np.array([2.5, -1.0, 4.0]),
    "i": np.array([3, 1, 1]),
    "A": np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),
    "table": np.array([[1, 2, 3], [4, 5, 6]]),
    "pair": (4, np.array([1.5, 2.5])),
    "pairs": [(1, 10.0), (2, 20.0)],
    "plain": [[1, 2], [3, 4]],
}

VALUES = {
    # literals
    "42": 42,
    "1_000": 1000,
    "2.": 2.0,
    ".5": 0.5,
    "1e-3": 1e-3,
    "2.5E+1": 25.0,
    # integers divide towards zero, as in C++
    "7 / 2": 3,
    "-7 / 2": -3,
    "7 / -2": -3,
    "N %/% 2": 3,
    "-N %/% 2": -3,
    "7 % 3": 1,
    "-7 % 3": -1,
    "7 % -3": 1,
    "7 / 2.0": 3.5,
    # precedence
    "1 + 2 * 3": 7,
    "(1 + 2) * 3": 9,
    "2 * 7 %/% 2": 6,  # `%/%` binds tighter than `*`
    "10 - 3 - 2": 5,
    "-2 ^ 2": -4.0,
    "2 ^ 3 ^ 2": 512.0,
    "2 ^ -1": 0.5,
    "!0 + 1": 2,
    "1 < 2 == 1": 1,
    "0 && 1 || 1": 1,
    "1 || 0 && 0": 1,
    "2 + 3 > 4 && 1 != 2": 1,
    "N > 5 ? 1 : 2": 1,
    "0 ? 1 : 0 ? 2 : 3": 3,
    "3 >= 3 && 3 <= 2": 0,
    # what is not chosen is not looked at
    "1 ? N : nowhere": 7,
    "0 && nowhere": 0,
    "1 || nowhere": 1,
    # names
    "N - M": 4,
    "flag + 1": 2,
    # indexing counts from 1
    "x[1]": 2.5,
    "x[M]": 4.0,
    "i[i[1]]": 1,
    "table[2, 3]": 6,
    "table[2][3]": 6,
    "sum(table[1])": 6,
    "sum(table[:, 2])": 7,
    "sum(x[2:3])": 3.0,
    "sum(x[2:])": 3.0,
    "sum(x[:2])": 1.5,
    "sum(x[i])": 9.0,
    "num_elements(x[3:2])": 0,
    "table[{2, 1}, {1, 3}][1, 2]": 6,
    "sum(table[{2, 1}, 3])": 9,
    "plain[2, 1]": 3,
    # tuples
    "pair.1": 4,
    "pair.2[2]": 2.5,
    "pairs[2].2": 20.0,
    "pairs[{2, 1}][1].1": 2,
    # arrays
    "sum({1, 2, N})": 10,
    "max([1.5, 2])": 2.0,
    "(A')[3, 2]": 6.0,
    "(A * A')[1, 2]": 32.0,
    "sum(x .* x)": 23.25,
    "sum(2 * x)": 11.0,
    "sum(x - x)": 0.0,
    "sum(x ./ 2)": 2.75,
    # functions
    "size(x)": 3,
    "size(table)": 2,
    "size(N)": 1,
    "num_elements(A)": 6,
    "rows(A)": 2,
    "cols(A)": 3,
    "dims(A)[2]": 3,
    "max(i)": 3,
    "max(N, M)": 7,
    "min(N, 2)": 2,
    "min(x)": -1.0,
    "prod(i)": 3,
    "mean(i)": 5 / 3,
    "abs(-3)": 3,
    "abs(-3.5)": 3.5,
    "floor(2.7)": 2.0,
    "ceil(2.2)": 3.0,
    "round(-2.5)": -3.0,
    "to_int(floor(2.7))": 2,
    "int_step(0.0)": 0,
    "int_step(3)": 1,
    "log(exp(2))": 2.0,
    "sqrt(16)": 4.0,
    "pow(2, 10)": 1024.0,
    "square(3)": 9.0,
    "inv(4)": 0.25,
    "inv_sqrt(16)": 0.25,
    "logit(0.75)": math.log(3),
    "inv_logit(logit(0.75))": 0.75,
    "fmax(2, 3)": 3.0,
    "choose(5, 2)": 10,
    "pi()": math.pi,
    "positive_infinity()": math.inf,
    "negative_infinity()": -math.inf,
    "-log(0)": math.inf,
    "1 / 0.0": math.inf,
    "sum(rep_vector(1.5, 4))": 6.0,
    "rep_array(N, 2, 3)[2, 3]": 7,
    "rows(rep_matrix(0, 4, 5))": 4,
    "log2()": math.log(2),
}


@pytest.mark.parametrize(("text", "value"), VALUES.items(), ids=VALUES.keys())
def test_an_expression_has_stans_value(text, value):
    seen = Expression.parse(text).evaluate(ENV)
    assert seen == pytest.approx(value, rel=1e-15)
    assert type(seen) is type(value)


BEYOND_THE_ENGINE = ("nowhere", "pair", "to_int", "int_step")  # unknown names; what stanli 0.24 has not


def test_the_engine_gives_the_same_values():
    texts = [text for text in VALUES if not any(word in text for word in BEYOND_THE_ENGINE)]
    code = (
        "data { int N; int M; int flag; vector[3] x; array[3] int i; matrix[2, 3] A; array[2, 3] int table; "
        "array[2, 2] int plain; } parameters { real p; } model { p ~ normal(0, 1); } generated quantities { "
    ) + "".join(f"real v{number} = {text}; " for number, text in enumerate(texts))
    data = read_data(Program.from_code(code + "}"), {k: v for k, v in ENV.items() if "pair" not in k})
    model = stanli.bridgestan_model(stan_code=code + "}", data=data.to_json(), capture_stan_prints=False)
    seen = model.param_constrain(np.zeros(1), include_gq=True, rng=model.new_rng(1))[1:]
    assert dict(zip(texts, seen, strict=True)) == pytest.approx({t: VALUES[t] for t in texts}, rel=1e-15)


def test_arrays_come_back_as_arrays():
    assert Expression.parse("not_a_number()").evaluate({}) != Expression.parse("not_a_number()").evaluate({})
    np.testing.assert_array_equal(Expression.parse("rep_array(N, 2)").evaluate(ENV), [7, 7])
    np.testing.assert_array_equal(Expression.parse("A[2]").evaluate(ENV), [4.0, 5.0, 6.0])


UNEVALUABLE = {
    "nowhere + 1": "`nowhere` is not known",
    "my_function(N)": "`my_function` is not evaluated",
    "N / 0": "division by zero",
    "N % 0": "division by zero",
    "x[4]": "index 4 is outside 1..3",
    "x[0]": "index 0 is outside",
    "x[{0, 2}]": "is outside 1..3",
    "x[2:4]": "is outside 1..3",
    "x < 2": "compares two numbers",
    "2 > x": "compares two numbers",
    "x ? 1 : 2": "condition",
    "x[1, 1]": "more indices than dimensions",
    "x + A": "shapes",
    "x * x": "not done here",  # row or column: not known
    "1.5 % 2": "divides integers",
    "size(A)": "size",
    "rows(x)": "matrix",
    "to_int(log(-1))": "not finite",
    "pair.3": "component",
    "pair + 1": "tuples",
    "2i": "complex",
    "sqrt(1, 2, 3)": "sqrt",
    "A ^ 2": "not done here",
}


@pytest.mark.parametrize(("text", "reason"), UNEVALUABLE.items(), ids=UNEVALUABLE.keys())
def test_what_has_no_value_here_says_why(text, reason):
    with pytest.raises(Unevaluable, match=reason):
        Expression.parse(text).evaluate(ENV)


SAME = [
    ("N-1", "N - 1", "N /* all */ - // but one\n 1"),
    ("f( a,b )", "f(a, b)"),
    ("normal_lpdf(a|b,c)", "normal_lpdf(a | b, c)"),
    ("x[ 1 , : ,2 : ]", "x[1, :, 2:]"),
    ("a?b:c", "a ? b : c"),
    ("{1,2}", "{1, 2}"),
    ("[ ]", "[]"),
    ("!a", "! a"),
    ("x '", "x'"),
    ("(a,b).1", "(a, b).1"),
    ("2*(a+b)", "2 * (a + b)"),
]


@pytest.mark.parametrize("texts", SAME, ids=[texts[-1] for texts in SAME])
def test_spelling_does_not_matter_to_equality(texts):
    expressions = [Expression.parse(text) for text in texts]
    assert len(set(expressions)) == 1
    assert Expression.parse(expressions[0].text) == expressions[0]


def test_the_canonical_text_has_one_space_around_operators():
    assert str(Expression.parse("(N-1)*max( x )")) == "(N - 1) * max(x)"
    assert Expression.parse("N - 1") != Expression.parse("N + 1")


def test_free_names_leave_functions_out():
    assert Expression.parse("f(a, g(b)[c:d]) + (e ? h.1 : {k'})").names == set("abcdehk")
    assert Expression.parse("max").names == {"max"}
    assert Expression.parse("pi() * 2").names == frozenset()


def test_words_of_the_language_inside_names_are_names():
    names = ["data_x", "intercept", "real_", "lower", "upper", "offset", "array_of", "vectors", "forx", "x2"]
    assert Expression.parse(" + ".join(names)).names == set(names)


def test_an_expression_survives_pickling():
    expression = pickle.loads(pickle.dumps(Expression.parse("N - 1")))
    assert expression == Expression.parse("N - 1")
    assert expression.evaluate({"N": 3}) == 2


@pytest.mark.parametrize("text", ["", "N -", "(N", "1 2", "N # all", "a = b", "x[1"])
def test_what_is_no_expression_is_refused(text):
    with pytest.raises(ProgramError, match="no Stan expression"):
        Expression.parse(text)
