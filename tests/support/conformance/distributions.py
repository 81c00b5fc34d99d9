"""Densities, masses and distribution functions, each argument a scalar or a container, each in turn a parameter."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from .cases import Case
from .environment import VARIABLES

# name: (supports of the outcome and the arguments, log density of Y given A, B, C, log distribution function or None).
# Supports are letters of `environment.ARGUMENTS`; other words are names of the environment.
UNIVARIATE: dict[str, tuple[str, str, str | None]] = {
    "normal": ("R R P", "stats.norm.logpdf(Y, A, B)", "stats.norm.logcdf(Y, A, B)"),
    "std_normal": ("R", "stats.norm.logpdf(Y)", "stats.norm.logcdf(Y)"),
    "student_t": ("R P R P", "stats.t.logpdf(Y, A, B, C)", "stats.t.logcdf(Y, A, B, C)"),
    "cauchy": ("R R P", "stats.cauchy.logpdf(Y, A, B)", "stats.cauchy.logcdf(Y, A, B)"),
    "double_exponential": ("R R P", "stats.laplace.logpdf(Y, A, B)", "stats.laplace.logcdf(Y, A, B)"),
    "logistic": ("R R P", "stats.logistic.logpdf(Y, A, B)", "stats.logistic.logcdf(Y, A, B)"),
    "gumbel": ("R R P", "stats.gumbel_r.logpdf(Y, A, B)", "stats.gumbel_r.logcdf(Y, A, B)"),
    "skew_normal": ("R R P R", "stats.skewnorm.logpdf(Y, C, A, B)", "skew_normal_lcdf(Y, A, B, C)"),
    "exp_mod_normal": ("R R P P", "exp_mod_normal_lpdf(Y, A, B, C)", "exp_mod_normal_lcdf(Y, A, B, C)"),
    "skew_double_exponential": ("R R P U", "skew_laplace_lpdf(Y, A, B, C)", "skew_laplace_lcdf(Y, A, B, C)"),
    "von_mises": ("R R P", "B * np.cos(Y - A) - np.log(2 * np.pi * special.i0(B))", None),
    "lognormal": (
        "P R P",
        "stats.lognorm.logpdf(Y, B, 0, np.exp(A))",
        "stats.lognorm.logcdf(Y, B, 0, np.exp(A))",
    ),
    "chi_square": ("P P", "stats.chi2.logpdf(Y, A)", "np.log(special.gammainc(A / 2, Y / 2))"),
    "inv_chi_square": ("P P", "inv_chi_square_lpdf(Y, A)", "np.log(special.gammaincc(A / 2, 0.5 / Y))"),
    "scaled_inv_chi_square": (
        "P P P",
        "inv_chi_square_lpdf(Y / (A * B**2), A) - np.log(A * B**2)",
        "np.log(special.gammaincc(A / 2, A * B**2 / (2 * Y)))",
    ),
    "exponential": ("P P", "np.log(A) - A * Y", "np.log(-np.expm1(-A * Y))"),
    "gamma": ("P P P", "stats.gamma.logpdf(Y, A, 0, 1 / B)", "np.log(special.gammainc(A, B * Y))"),
    "inv_gamma": ("P P P", "stats.invgamma.logpdf(Y, A, 0, B)", "np.log(special.gammaincc(A, B / Y))"),
    "weibull": ("P P P", "stats.weibull_min.logpdf(Y, A, 0, B)", "np.log(-np.expm1(-((Y / B) ** A)))"),
    "frechet": ("P P P", "stats.invweibull.logpdf(Y, A, 0, B)", "-((Y / B) ** -A)"),
    "rayleigh": ("P P", "stats.rayleigh.logpdf(Y, 0, A)", "np.log(-np.expm1(-(Y**2) / (2 * A**2)))"),
    "loglogistic": ("P P P", "stats.fisk.logpdf(Y, B, 0, A)", "-np.log1p((Y / A) ** -B)"),
    "pareto": ("H P P", "np.log(B) + B * np.log(A) - (B + 1) * np.log(Y)", "np.log(1 - (A / Y) ** B)"),
    "pareto_type_2": (
        "H R P P",
        "np.log(C / B) - (C + 1) * np.log1p((Y - A) / B)",
        "np.log(1 - (1 + (Y - A) / B) ** -C)",
    ),
    "beta": ("U P P", "stats.beta.logpdf(Y, A, B)", "np.log(special.betainc(A, B, Y))"),
    "beta_proportion": (
        "U U P",
        "stats.beta.logpdf(Y, A * B, (1 - A) * B)",
        "np.log(special.betainc(A * B, (1 - A) * B, Y))",
    ),
    "uniform": ("R L H", "-np.log(B - A) + 0 * Y", "np.log((Y - A) / (B - A))"),
    "bernoulli": ("B U", "np.log(np.where(Y == 1, A, 1 - A))", "np.log(np.where(Y == 1, 1 + 0 * A, 1 - A))"),
    "bernoulli_logit": ("B R", "-np.logaddexp(0, np.where(Y == 1, -A, A))", None),
    "binomial": ("N M U", "stats.binom.logpmf(Y, A, B)", "stats.binom.logcdf(Y, A, B)"),
    "binomial_logit": ("N M R", "stats.binom.logpmf(Y, A, special.expit(B))", None),
    "beta_binomial": ("N M P P", "stats.betabinom.logpmf(Y, A, B, C)", "stats.betabinom.logcdf(Y, A, B, C)"),
    "neg_binomial": (
        "N P P",
        "stats.nbinom.logpmf(Y, A, B / (1 + B))",
        "stats.nbinom.logcdf(Y, A, B / (1 + B))",
    ),
    "neg_binomial_2": (
        "N P P",
        "stats.nbinom.logpmf(Y, B, B / (A + B))",
        "stats.nbinom.logcdf(Y, B, B / (A + B))",
    ),
    "neg_binomial_2_log": ("N R P", "stats.nbinom.logpmf(Y, B, B / (np.exp(A) + B))", None),
    "poisson": ("N P", "stats.poisson.logpmf(Y, A)", "stats.poisson.logcdf(Y, A)"),
    "poisson_log": ("N R", "stats.poisson.logpmf(Y, np.exp(A))", None),
    "discrete_range": ("N zero seven", "-np.log(8.0) + 0 * Y", "np.log((Y + 1) / 8)"),
    "hypergeometric": (
        "i n n seven",
        "stats.hypergeom.logpmf(2, 10, 3, 3)",
        None,
    ),
    "categorical": ("K p", "np.log(A[Y - 1])", None),
    "categorical_logit": ("K v", "A[Y - 1] - log_sum_exp(A)", None),
    "ordered_logistic": ("K R o", "ordered_lpmf(Y, A, B, special.expit)", None),
    "ordered_probit": ("K R o", "ordered_lpmf(Y, A, B, special.ndtr)", None),
}
MULTIVARIATE: dict[str, tuple[str, str, str]] = {
    # Stan expression: numpy
    "multi_normal_lpdf(v | w, S)": "stats.multivariate_normal.logpdf(v, w, S)",
    "multi_normal_lpdf(rv | w, S)": "stats.multivariate_normal.logpdf(rv, w, S)",
    "multi_normal_lpdf(v | rv, S)": "stats.multivariate_normal.logpdf(v, rv, S)",
    "multi_normal_lpdf(rv | rw, S)": "stats.multivariate_normal.logpdf(rv, rw, S)",
    "multi_normal_lpdf(av | w, S)": "stats.multivariate_normal.logpdf(av - w, cov=S).sum()",
    "multi_normal_lpdf(arv | w, S)": "stats.multivariate_normal.logpdf(arv - w, cov=S).sum()",
    "multi_normal_lpdf(v | av, S)": "stats.multivariate_normal.logpdf(v - av, cov=S).sum()",
    "multi_normal_lpdf(av | arv, S)": "stats.multivariate_normal.logpdf(av - arv, cov=S).sum()",
    "multi_normal_prec_lpdf(v | w, S)": "stats.multivariate_normal.logpdf(v, w, np.linalg.inv(S))",
    "multi_normal_prec_lpdf(av | w, S)": "stats.multivariate_normal.logpdf(av - w, cov=np.linalg.inv(S)).sum()",
    "multi_normal_cholesky_lpdf(v | w, L)": "stats.multivariate_normal.logpdf(v, w, L @ L.T)",
    "multi_normal_cholesky_lpdf(rv | rw, L)": "stats.multivariate_normal.logpdf(rv, rw, L @ L.T)",
    "multi_normal_cholesky_lpdf(av | w, L)": "stats.multivariate_normal.logpdf(av - w, cov=L @ L.T).sum()",
    "multi_normal_cholesky_lpdf(arv | av, L)": "stats.multivariate_normal.logpdf(arv - av, cov=L @ L.T).sum()",
    "multi_student_t_lpdf(v | b, w, S)": "multi_student_t_lpdf(v, b, w, S)",
    "multi_student_t_lpdf(rv | b, rw, S)": "multi_student_t_lpdf(rv, b, rw, S)",
    "multi_student_t_lpdf(av | b, w, S)": "sum(multi_student_t_lpdf(row, b, w, S) for row in av)",
    "multi_student_t_cholesky_lpdf(v | b, w, L)": "multi_student_t_lpdf(v, b, w, L @ L.T)",
    "multi_gp_lpdf(mt | S, v2 .* v2)": "sum(stats.multivariate_normal.logpdf(row, np.zeros(3), S / weight) for row, weight in zip(mt, v2**2))",
    "multi_gp_cholesky_lpdf(mt | L, v2 .* v2)": "sum(stats.multivariate_normal.logpdf(row, np.zeros(3), L @ L.T / weight) for row, weight in zip(mt, v2**2))",
    "dirichlet_lpdf(p | vp)": "dirichlet_lpdf(p, vp)",
    "dirichlet_lpdf({p, q} | vp)": "dirichlet_lpdf(p, vp) + dirichlet_lpdf(q, vp)",
    "dirichlet_lpdf({p, q} | {vp, vp + 1})": "dirichlet_lpdf(p, vp) + dirichlet_lpdf(q, vp + 1)",
    "multinomial_lpmf(k | p)": "np.log(60) + k @ np.log(p)",
    "multinomial_logit_lpmf(k | v)": "np.log(60) + k @ (v - log_sum_exp(v))",
    "dirichlet_multinomial_lpmf(k | vp)": "special.gammaln(vp.sum()) + special.gammaln(7) - special.gammaln(6 + vp.sum())"
    " + (special.gammaln(k + vp) - special.gammaln(vp) - special.gammaln(k + 1)).sum()",
    "lkj_corr_lpdf(LR * LR' | b)": "lkj_lpdf(LR @ LR.T, b)",
    "lkj_corr_cholesky_lpdf(LR | b)": "lkj_lpdf(np.eye(3), b) + ((3 - np.arange(2, 4) + 2 * b - 2) * np.log(np.diag(LR)[1:])).sum()",
    "wishart_lpdf(S | 4 + b, L * L')": "stats.wishart.logpdf(S, 4 + b, L @ L.T)",
    "inv_wishart_lpdf(S | 4 + b, L * L')": "stats.invwishart.logpdf(S, 4 + b, L @ L.T)",
    "wishart_cholesky_lpdf(L | 4 + b, L)": "stats.wishart.logpdf(L @ L.T, 4 + b, L @ L.T) + 3 * np.log(2) + ((3 - np.arange(3)) * np.log(np.diag(L))).sum()",
    "inv_wishart_cholesky_lpdf(L | 4 + b, L)": "stats.invwishart.logpdf(L @ L.T, 4 + b, L @ L.T) + 3 * np.log(2)"
    " + ((3 - np.arange(3)) * np.log(np.diag(L))).sum()",
    "categorical_lpmf(k | p)": "np.log(p[k - 1]).sum()",
    "categorical_logit_lpmf(again | v)": "(v[again - 1] - log_sum_exp(v)).sum()",
    "categorical_logit_glm_lpmf(k | A, v, S)": "sum((v + A[j] @ S)[k[j] - 1] - log_sum_exp(v + A[j] @ S) for j in range(3))",
    "normal_id_glm_lpdf(v | A, a, w, b)": "stats.norm.logpdf(v, a + A @ w, b).sum()",
    "normal_id_glm_lpdf(v | A, vp, w, b)": "stats.norm.logpdf(v, vp + A @ w, b).sum()",
    "normal_id_glm_lpdf(v | A, vp, w, vp)": "stats.norm.logpdf(v, vp + A @ w, vp).sum()",
    "normal_id_glm_lpdf(v | rv, a, w, b)": "stats.norm.logpdf(v, a + rv @ w, b).sum()",
    "normal_id_glm_lpdf(a | A, vp, w, b)": "stats.norm.logpdf(a, vp + A @ w, b).sum()",
    "poisson_log_glm_lpmf(k | A, a, w)": "stats.poisson.logpmf(k, np.exp(a + A @ w)).sum()",
    "poisson_log_glm_lpmf(k | A, v, w)": "stats.poisson.logpmf(k, np.exp(v + A @ w)).sum()",
    "poisson_log_glm_lpmf(k | rv, v, w)": "stats.poisson.logpmf(k, np.exp(v + rv @ w)).sum()",
    "bernoulli_logit_glm_lpmf({1, 0, 1} | A, a, w)": "stats.bernoulli.logpmf([1, 0, 1], special.expit(a + A @ w)).sum()",
    "bernoulli_logit_glm_lpmf({1, 0, 1} | A, v, w)": "stats.bernoulli.logpmf([1, 0, 1], special.expit(v + A @ w)).sum()",
    "bernoulli_logit_glm_lpmf({1, 0, 1} | rv, v, w)": "stats.bernoulli.logpmf([1, 0, 1], special.expit(v + rv @ w)).sum()",
    "neg_binomial_2_log_glm_lpmf(k | A, a, w, b)": "stats.nbinom.logpmf(k, b, b / (b + np.exp(a + A @ w))).sum()",
    "binomial_logit_glm_lpmf(k | {4, 5, 6}, A, a, w)": "stats.binom.logpmf(k, [4, 5, 6], special.expit(a + A @ w)).sum()",
    "ordered_logistic_glm_lpmf(k | A, w, o)": "ordered_lpmf(k, A @ w, o, special.expit).sum()",
    "ordered_logistic_lpmf(k | v, {o, o + 0.2, o - 0.1})": "ordered_lpmf(k[0], v[0], o, special.expit) + ordered_lpmf(k[1], v[1], o + 0.2, special.expit)"
    " + ordered_lpmf(k[2], v[2], o - 0.1, special.expit)",
    "ordered_probit_lpmf(k | v, {o, o + 0.2, o - 0.1})": "ordered_lpmf(k[0], v[0], o, special.ndtr) + ordered_lpmf(k[1], v[1], o + 0.2, special.ndtr)"
    " + ordered_lpmf(k[2], v[2], o - 0.1, special.ndtr)",
}
# what Stan's compiler knows of those that do not take every container: of the outcome and the first argument
_KNOWN = {
    "categorical": ("ss", "vv"),
    "categorical_logit": ("ss", "vv"),
    "ordered_logistic": ("ss", "vv"),
    "ordered_probit": ("ss", "vv", "vs"),
}
_NO_FUNCTION = {
    ("bernoulli", "lccdf"),  # of an outcome of 1 it is minus infinity
    ("discrete_range", "lccdf"),
    ("loglogistic", "lcdf"),
    ("loglogistic", "lccdf"),
    ("beta_proportion", "cdf"),
}
_INTEGERS = set("NBKM")


def _name(support: str, slot: int, letter: str) -> str:
    if support in _INTEGERS:
        return f"{support}1{'s' if letter == 's' else 'a'}"
    if f"{support}1s" not in VARIABLES:
        return support
    return f"{support}{slot}{letter}"


def _numpy(truth: str, names: list[str]) -> str:
    table = dict(zip("YABC", names, strict=False))
    return re.sub(r"\b([YABC])\b", lambda found: table[found[1]], truth)


def _patterns(count: int) -> Iterator[str]:
    """One letter an argument: scalar, vector, row vector, array."""
    yield "s" * count
    for letter in "vra":
        yield letter * count
    if count > 1:
        yield ("varv" * 2)[:count]
        for place in range(count):
            for letter in "vra":
                yield "".join(letter if place == j else "s" for j in range(count))
            yield "".join("s" if place == j else "v" for j in range(count))


def _names(supports: list[str], pattern: str) -> list[str]:
    return [
        _name(support, slot, letter)
        for slot, (support, letter) in enumerate(zip(supports, pattern, strict=True), 1)
    ]


def _call(function: str, names: list[str]) -> str:
    return f"{function}({names[0]} | {', '.join(names[1:])})" if names[1:] else f"{function}({names[0]} | )"


def densities() -> Iterator[Case]:
    """Each density and mass, with the containers of `_patterns`."""
    for name, (words, truth, _) in UNIVARIATE.items():
        supports = words.split()
        function = f"{name}_{'lpmf' if supports[0] in _INTEGERS | {'i'} else 'lpdf'}"
        seen = set()
        for pattern in _patterns(len(supports)):
            names = _names(supports, pattern)
            if tuple(names) in seen or pattern[:2] not in _KNOWN.get(name, pattern):
                continue
            seen.add(tuple(names))
            call = _call(function, names)
            yield Case(call, f"real r = {call};", f"np.sum({_numpy(truth, names)})")
    for call, truth in MULTIVARIATE.items():
        yield Case(call, f"real r = {call};", truth)


def single_parameters() -> Iterator[Case]:
    """Each density with one argument after the other a parameter and the others data."""
    for case in densities():
        moving = [name for name in case.used if VARIABLES[name].slope is not None]
        univariate = case.code.count("|") and not any(name in case.used for name in ("L", "S", "A", "LR"))
        letters = {name[-1] for name in moving}
        if len(moving) < 2 or (univariate and len(letters) > 1):
            continue
        for name in moving:
            yield replace(case, name=f"{case.name}, {name} a parameter", vary=frozenset({name}))


def distribution_functions() -> Iterator[Case]:
    """cdf, lcdf and lccdf of scalars and of vectors."""
    for name, (words, _, truth) in UNIVARIATE.items():
        if truth is None:
            continue
        supports = words.split()
        patterns = ("s" * len(supports), "v" * len(supports), "v" + "s" * (len(supports) - 1))
        for names in map(list, dict.fromkeys(tuple(_names(supports, pattern)) for pattern in patterns)):
            log = _numpy(truth, names)
            for suffix, value in (
                ("cdf", f"np.exp(np.sum({log}))"),
                ("lcdf", f"np.sum({log})"),
                ("lccdf", f"np.sum(np.log(-np.expm1({log})))"),
            ):
                if (name, suffix) in _NO_FUNCTION:
                    continue
                call = _call(f"{name}_{suffix}", names)
                yield Case(call, f"real r = {call};", value)


def cases() -> Iterator[Case]:
    yield from densities()
    yield from distribution_functions()
