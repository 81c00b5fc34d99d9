"""Functions of one and two numbers, of scalars and entry by entry of each container."""

from __future__ import annotations

from collections.abc import Iterator

from .cases import Case

# function: (support of its argument in `environment.ARGUMENTS`, numpy of X)
UNARY = {
    "abs": ("R", "np.abs(X)"),
    "floor": ("R", "np.floor(X)"),
    "ceil": ("R", "np.ceil(X)"),
    "round": ("R", "np.round(X)"),
    "trunc": ("R", "np.trunc(X)"),
    "sqrt": ("P", "np.sqrt(X)"),
    "cbrt": ("R", "np.cbrt(X)"),
    "square": ("R", "X**2"),
    "exp": ("R", "np.exp(X)"),
    "exp2": ("R", "2.0**X"),
    "log": ("P", "np.log(X)"),
    "log2": ("P", "np.log2(X)"),
    "log10": ("P", "np.log10(X)"),
    "inv": ("P", "1 / X"),
    "inv_sqrt": ("P", "X**-0.5"),
    "inv_square": ("P", "X**-2.0"),
    "sin": ("R", "np.sin(X)"),
    "cos": ("R", "np.cos(X)"),
    "tan": ("U", "np.tan(X)"),
    "asin": ("U", "np.arcsin(X)"),
    "acos": ("U", "np.arccos(X)"),
    "atan": ("R", "np.arctan(X)"),
    "sinh": ("R", "np.sinh(X)"),
    "cosh": ("R", "np.cosh(X)"),
    "tanh": ("R", "np.tanh(X)"),
    "asinh": ("R", "np.arcsinh(X)"),
    "acosh": ("H", "np.arccosh(X)"),
    "atanh": ("U", "np.arctanh(X)"),
    "logit": ("U", "np.log(X / (1 - X))"),
    "inv_logit": ("R", "1 / (1 + np.exp(-X))"),
    "inv_cloglog": ("R", "-np.expm1(-np.exp(X))"),
    "erf": ("R", "special.erf(X)"),
    "erfc": ("R", "special.erfc(X)"),
    "inv_erfc": ("U", "special.erfcinv(X)"),
    "Phi": ("R", "special.ndtr(X)"),
    "inv_Phi": ("U", "special.ndtri(X)"),
    "Phi_approx": ("R", "special.expit(0.07056 * X**3 + 1.5976 * X)"),
    "lgamma": ("P", "special.gammaln(X)"),
    "tgamma": ("P", "special.gamma(X)"),
    "digamma": ("P", "special.digamma(X)"),
    "trigamma": ("P", "special.polygamma(1, X)"),
    "log1m": ("U", "np.log1p(-X)"),
    "log1p": ("U", "np.log1p(X)"),
    "log1p_exp": ("R", "np.logaddexp(0, X)"),
    "log1m_exp": ("-P", "np.log(-np.expm1(X))"),
    "log1m_inv_logit": ("R", "-np.logaddexp(0, X)"),
    "log_inv_logit": ("R", "-np.logaddexp(0, -X)"),
    "expm1": ("R", "np.expm1(X)"),
    "lambert_w0": ("P", "special.lambertw(X).real"),
    "lambert_wm1": ("-U/3", "special.lambertw(X, -1).real"),
    "std_normal_qf": ("U", "special.ndtri(X)"),
    "std_normal_log_qf": ("-P", "special.ndtri_exp(X)"),
}

# function: (supports of both arguments, numpy of X and Y)
BINARY = {
    "pow": ("P", "R", "X**Y"),
    "atan2": ("R", "P", "np.arctan2(X, Y)"),
    "hypot": ("R", "P", "np.hypot(X, Y)"),
    "fmod": ("R", "P", "np.fmod(X, Y)"),
    "fmin": ("R", "P", "np.fmin(X, Y)"),
    "fmax": ("R", "P", "np.fmax(X, Y)"),
    "fdim": ("H", "P", "np.maximum(X - Y, 0)"),
    "beta": ("P", "P", "special.beta(X, Y)"),
    "lbeta": ("P", "P", "special.betaln(X, Y)"),
    "lchoose": ("H", "U", "special.gammaln(X + 1) - special.gammaln(Y + 1) - special.gammaln(X - Y + 1)"),
    "falling_factorial": ("H", "U", "special.gamma(X + 1) / special.gamma(X - Y + 1)", "int"),
    "rising_factorial": ("H", "U", "special.poch(X, Y)", "int"),
    "log_falling_factorial": ("H", "U", "special.gammaln(X + 1) - special.gammaln(X - Y + 1)"),
    "log_rising_factorial": ("H", "U", "special.gammaln(X + Y) - special.gammaln(X)"),
    "gamma_p": ("P", "P", "special.gammainc(X, Y)"),
    "gamma_q": ("P", "P", "special.gammaincc(X, Y)"),
    "lmultiply": ("P", "P", "X * np.log(Y)"),
    "log_diff_exp": ("H", "P", "np.log(np.exp(X) - np.exp(Y))"),
    "log_inv_logit_diff": ("H", "R", "np.log(special.expit(X) - special.expit(Y))"),
    "log_modified_bessel_first_kind": ("P", "P", "np.log(special.iv(X, Y))"),
    "owens_t": ("R", "P", "special.owens_t(X, Y)"),
    "log_sum_exp": ("R", "R", "np.logaddexp(X, Y)", "scalar"),
}
# function: (expression of Stan with an integer first, numpy)
INTEGER_FIRST = {
    "bessel_first_kind": "special.jv(X, Y)",
    "bessel_second_kind": "special.yv(X, Y)",
    "modified_bessel_first_kind": "special.iv(X, Y)",
    "modified_bessel_second_kind": "special.kv(X, Y)",
    "lmgamma": "special.multigammaln_all(X, Y)",
}
_CONTAINERS = {"s": "real", "v": "vector[3]", "r": "row_vector[3]", "a": "array[3] real"}


def _argument(support: str, slot: int, letter: str) -> tuple[str, str, str]:
    """Statements, the argument's name and numpy for a support as the tables write it, perhaps negated or scaled."""
    plain = support.strip("-/3")
    name = f"{plain}{slot}{letter}"
    if plain == support:
        return "", name, name
    scale = "-0.3" if support.endswith("/3") else "-1"
    kind = _CONTAINERS[letter]
    if letter == "a":
        return f"{kind} z; for (j in 1:3) z[j] = {scale} * {name}[j]; ", "z", f"{scale} * {name}"
    return f"{kind} z = {scale} * {name}; ", "z", f"{scale} * {name}"


def _replaced(truth: str, x: str, y: str = "") -> str:
    return truth.replace("X", f"({x})").replace("Y", f"({y})").replace("np.e(", "np.e(")


def cases() -> Iterator[Case]:
    for function, (support, truth) in UNARY.items():
        for letter, kind in _CONTAINERS.items():
            before, name, numpy = _argument(support, 1, letter)
            yield Case(
                f"{function} of {kind}", f"{before}{kind} r = {function}({name});", _replaced(truth, numpy)
            )
    for function in ("exp", "square", "inv_logit", "Phi", "log1p_exp"):
        truth = UNARY[function][1]
        for name, kind in (
            ("m", "matrix[3,2]"),
            ("rb", "array[2,3] real"),
            ("av", "array[2] vector[3]"),
            ("am", "array[2] matrix[2,2]"),
        ):
            yield Case(f"{function} of {kind}", f"{kind} r = {function}({name});", _replaced(truth, name))
    for function, (first, second, truth, *kinds) in BINARY.items():
        pairs = [("s", "s")]
        if "scalar" not in kinds:
            pairs += [("v", "v"), ("v", "s"), ("s", "v"), ("a", "a"), ("s", "a"), ("r", "r"), ("r", "s")]
        for x, y in pairs:
            kind = _CONTAINERS[y if x == "s" else x]
            if "int" in kinds and y != "s":
                continue
            text = truth
            names = [f"{first}1{x}", f"{second}2{y}"]
            if "int" in kinds:
                names[1] = "i"
            yield Case(
                f"{function} of {_CONTAINERS[x]} and {_CONTAINERS[y]}",
                f"{kind} r = {function}({names[0]}, {names[1]});",
                _replaced(text, *names),
            )
    for function, truth in INTEGER_FIRST.items():
        for x, y in (("s", "s"), ("s", "v"), ("a", "a")):
            kind = _CONTAINERS[y]
            first = "i" if x == "s" else "N1a"
            yield Case(
                f"{function} of {'int' if x == 's' else 'array[3] int'} and {kind}",
                f"{kind} r = {function}({first}, H2{y});",
                _replaced(truth.replace("special.multigammaln_all", "lmgamma"), first, f"H2{y}"),
            )
