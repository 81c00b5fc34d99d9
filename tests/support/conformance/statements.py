"""Sampling statements: what `~` and truncation add to the target, up to a constant, and its derivative.

A statement has no value to read: its program has one parameter `x`, and its log density at two points and its gradient are
compared with numpy's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.stan_data import read_data
from stan_adapters.errors import AvistanError
from stan_adapters.language.program import Program

from .cases import Case
from .distributions import densities
from .environment import VARIABLES
from .places import argument, moved
from .running import Outcome, near

FAR = 0.08  # the second point
IN_MODEL, IN_FUNCTION = "statement", "statement in a function"

# Stan: numpy. Bounds of y, data or parameters.
TRUNCATED = {
    "a ~ normal(neg, b) T[u, 2.5];": "stats.norm.logpdf(a, neg, b) - between(stats.norm, u, 2.5, neg, b)",
    "a ~ normal(neg, b) T[u, ];": "stats.norm.logpdf(a, neg, b) - stats.norm.logsf(u, neg, b)",
    "a ~ normal(neg, b) T[, b];": "stats.norm.logpdf(a, neg, b) - stats.norm.logcdf(b, neg, b)",
    "a ~ normal(neg, b) T[-1, 4];": "stats.norm.logpdf(a, neg, b) - between(stats.norm, -1, 4, neg, b)",
    "a ~ student_t(4, neg, b) T[u, ];": "stats.t.logpdf(a, 4, neg, b) - stats.t.logsf(u, 4, neg, b)",
    "a ~ cauchy(neg, b) T[u, 3];": "stats.cauchy.logpdf(a, neg, b) - between(stats.cauchy, u, 3, neg, b)",
    "a ~ double_exponential(neg, b) T[0, ];": "stats.laplace.logpdf(a, neg, b) - stats.laplace.logsf(0, neg, b)",
    "a ~ logistic(neg, b) T[, 2];": "stats.logistic.logpdf(a, neg, b) - stats.logistic.logcdf(2, neg, b)",
    "a ~ exponential(b) T[u, 3];": "stats.expon.logpdf(a, 0, 1 / b) - between(stats.expon, u, 3, 0, 1 / b)",
    "a ~ gamma(2.5, b) T[u, ];": "stats.gamma.logpdf(a, 2.5, 0, 1 / b) - stats.gamma.logsf(u, 2.5, 0, 1 / b)",
    "a ~ lognormal(neg, b) T[u, 3];": "stats.lognorm.logpdf(a, b, 0, np.exp(neg)) - between(stats.lognorm, u, 3, b, 0, np.exp(neg))",
    "a ~ weibull(2, b) T[u, ];": "stats.weibull_min.logpdf(a, 2, 0, b) - stats.weibull_min.logsf(u, 2, 0, b)",
    "u ~ beta(b, 2) T[0.1, a];": "stats.beta.logpdf(u, b, 2) - between(stats.beta, 0.1, a, b, 2)",
    "n ~ poisson(b) T[1, ];": "stats.poisson.logpmf(3, b) - np.log(-np.expm1(-b))",
    "n ~ poisson(b) T[2, 6];": "stats.poisson.logpmf(3, b) - between(stats.poisson, 1, 6, b)",
    "n ~ poisson(b) T[, 5];": "stats.poisson.logpmf(3, b) - stats.poisson.logcdf(5, b)",
    "n ~ neg_binomial_2(b, a) T[1, ];": "stats.nbinom.logpmf(3, a, a / (a + b)) - np.log(1 - stats.nbinom.pmf(0, a, a / (a + b)))",
    "n ~ binomial(seven, u) T[1, 5];": "stats.binom.logpmf(3, 7, u) - between(stats.binom, 0, 5, 7, u)",
    "for (x1 in 1:3) vp[x1] ~ normal(w[x1], b) T[0, ];": "(stats.norm.logpdf(vp, w, b) - stats.norm.logsf(0, w, b)).sum()",
    "for (x1 in 1:3) k[x1] ~ poisson(vp[x1]) T[1, ];": "(stats.poisson.logpmf(k, vp) - np.log(-np.expm1(-vp))).sum()",
}
# Stan: numpy, and the functions that they call.
OTHERS = {
    "f6_lp(v, w, b, k);": (
        "stats.norm.logpdf(v, w, b).sum() + stats.poisson.logpmf(k, b).sum()",
        "void f6_lp(vector x1, vector x2, real x3, array[] int x4)"
        " { x1 ~ normal(x2, x3); x4 ~ poisson(x3); }",
    ),
    "target += v;": ("v.sum()", ""),
    "target += rv;": ("rv.sum()", ""),
    "target += ra;": ("ra.sum()", ""),
    "target += m;": ("m.sum()", ""),
    "target += rb;": ("rb.sum()", ""),
    "target += av;": ("av.sum()", ""),
    "v + w ~ normal(a, b);": ("stats.norm.logpdf(v + w, a, b).sum()", ""),
    "v[2:] ~ normal(w[:2], b);": ("stats.norm.logpdf(v[1:], w[:2], b).sum()", ""),
    "v[k] ~ normal(w, b);": ("stats.norm.logpdf(v[k - 1], w, b).sum()", ""),
    "to_vector(m) ~ normal(a, b);": ("stats.norm.logpdf(m, a, b).sum()", ""),
    "m[, 2] ~ normal(v, b);": ("stats.norm.logpdf(m[:, 1], v, b).sum()", ""),
    "A[2] ~ normal(rv, b);": ("stats.norm.logpdf(A[1], rv, b).sum()", ""),
    "ra ~ normal(v, b);": ("stats.norm.logpdf(ra, v, b).sum()", ""),
    "av[, 2] ~ normal(a, b);": ("stats.norm.logpdf(av[:, 1], a, b).sum()", ""),
    "for (x1 in av) x1 ~ normal(w, b);": ("stats.norm.logpdf(av, w, b).sum()", ""),
    "for (x1 in 1:3) for (x2 in 1:2) d[x1, x2] ~ poisson(vp[x1]);": (
        "stats.poisson.logpmf(d, vp[:, None]).sum()",
        "",
    ),
    "i ~ poisson_log_glm(A, v, w);": ("stats.poisson.logpmf(2, np.exp(v + A @ w)).sum()", ""),
    "d[2] ~ poisson(b);": ("stats.poisson.logpmf(d[1], b).sum()", ""),
    "d[, 1] ~ poisson(vp);": ("stats.poisson.logpmf(d[:, 0], vp).sum()", ""),
    "to_array_1d(d) ~ poisson(b);": ("stats.poisson.logpmf(d, b).sum()", ""),
    "k[few] ~ poisson(b);": ("stats.poisson.logpmf(k[few - 1], b).sum()", ""),
    "if (i > 1) v ~ normal(0, b); else w ~ normal(0, b);": ("stats.norm.logpdf(v, 0, b).sum()", ""),
    "v ~ f1(b);": ("-(v**2).sum() / b", "real f1_lpdf(vector x1, real x2) { return -dot_self(x1) / x2; }"),
    "k ~ f2(b);": (
        "k.sum() * np.log(b) - 3 * b",
        "real f2_lpmf(array[] int x1, real x2) { return sum(x1) * log(x2) - size(x1) * x2; }",
    ),
    "f3_lp(v, b);": (
        "stats.norm.logpdf(v, 0, b).sum() + 2 * b",
        "void f3_lp(vector x1, real x2) { x1 ~ normal(0, x2); target += 2 * x2; }",
    ),
    "real x1 = f4_lp(a, b); target += x1;": (
        "a * b + (a + b)",
        "real f4_lp(real x1, real x2) { target += x1 * x2; return x1 + x2; }",
    ),
    "target += f5(v, b) - target();": (
        "2 * v.sum() * b",
        "real f5(vector x1, real x2) { return sum(x1) * 2 * x2; }",
    ),
    "for (x1 in 1:3) target += log_sum_exp(log(u) + normal_lpdf(v[x1] | a, 1), log1m(u) + normal_lpdf(v[x1] | neg, b));": (
        "np.logaddexp(np.log(u) + stats.norm.logpdf(v, a), np.log(1 - u) + stats.norm.logpdf(v, neg, b)).sum()",
        "",
    ),
    "for (x1 in 1:3) target += log_mix(u, normal_lpdf(v[x1] | a, 1), normal_lpdf(v[x1] | neg, b));": (
        "np.logaddexp(np.log(u) + stats.norm.logpdf(v, a), np.log(1 - u) + stats.norm.logpdf(v, neg, b)).sum()",
        "",
    ),
    "matrix[2,3] x1; for (x2 in 1:3) x1[, x2] = [log(p[x2]), v[x2]]'; target += log_sum_exp(x1);": (
        "special.logsumexp([np.log(p), v])",
        "",
    ),
    "array[2] real x1 = {a, b}; x1[2] += x1[1]; x1 ~ normal(0, 1);": (
        "stats.norm.logpdf([a, a + b]).sum()",
        "",
    ),
    "1 ~ bernoulli(u);": ("np.log(u)", ""),
    "{1, 0, 1} ~ bernoulli(u);": ("np.log(u**2 * (1 - u))", ""),
    "reject_if_low(a);": ("0.0", 'void reject_if_low(real x1) { if (x1 < -5) reject("low"); }'),
}


def sampling() -> Iterator[Case]:
    """`y ~ name(..)` of every density: all arguments parameters, and each alone, as constants are dropped by that."""
    for case in densities():
        name, _, arguments = case.name.partition("(")
        outcome, _, others = arguments.removesuffix(")").partition(" | ")
        statement = f"{outcome} ~ {name.removesuffix('_lpdf').removesuffix('_lpmf')}({others});"
        if case.name.count("|") == 1:
            whole = replace(case, name=statement, code=statement, statement=True)
            moving = [variable for variable in whole.used if VARIABLES[variable].slope is not None]
            if not moving:
                continue
            yield whole
            kinds = {variable[-1] for variable in moving}
            if len(moving) > 1 and kinds in ({"s"}, {"v"}):
                for variable in moving:
                    yield replace(
                        whole, name=f"{statement} {variable} a parameter", vary=frozenset({variable})
                    )


def cases() -> Iterator[Case]:
    for code, truth in TRUNCATED.items():
        yield Case(code, code, truth, statement=True)
    for code, (truth, functions) in OTHERS.items():
        yield Case(code, code, truth, functions=functions, statement=True)


def program(case: Case, place: str) -> str:
    names = case.used
    moving = [name for name in names if case.moves(name)]
    data = "".join(f"  {VARIABLES[n].type} {n}{'_base' if n in moving else ''};\n" for n in names)
    data += "".join(f"  {VARIABLES[n].type} {n}_slope;\n" for n in moving)
    local = "".join(moved(name, name, 1, base=f"{name}_base") for name in moving)
    functions, body = case.functions, case.code
    if place == IN_FUNCTION:
        arguments = ", ".join(f"{argument(case, name)} {name}" for name in names)
        functions += f" void statement_lp({arguments}) {{ {case.code} }}"
        body = f"statement_lp({', '.join(names)});"
    return f"functions {{ {functions} }}\ndata {{\n{data}}}\nparameters {{ vector[1] x; }}\nmodel {{\n  {local}\n  {body}\n}}\n"


def run(case: Case, place: str, engine: str = "stanli") -> Outcome:
    right = (case.value(FAR) - case.value(), case.slope())
    stan = Program.from_code(program(case, place), name="case")
    values: dict[str, object] = {}
    for name in case.used:
        values[f"{name}_base" if case.moves(name) else name] = VARIABLES[name].base
        if case.moves(name):
            values[f"{name}_slope"] = VARIABLES[name].slope
    try:
        with BoundModel(stan, read_data(stan, values), engine=engine) as bound:
            densities_, gradients = bound.log_density_gradient(np.array([[0.0], [FAR]]))
            if not np.isfinite(densities_).all():
                return Outcome(
                    case,
                    place,
                    "wrong",
                    f"rejected: {bound.why_rejected([0.0]) or bound.why_rejected([FAR])}",
                )
    except AvistanError as error:
        return Outcome(case, place, "refused", f"{type(error).__name__}: {error}")
    got = (float(densities_[1] - densities_[0]), float(gradients[0, 0]))
    if near(got[0], right[0]) and near(got[1], right[1], case):
        return Outcome(case, place, "right")
    return Outcome(case, place, "wrong", f"(difference, derivative) {got} is not {right}")
