"""What an engine refuses everywhere, said in other words that it knows: so that no expectation is checked by nobody."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from .cases import Case

_QR = "matrix[COLS,COLS] up = cholesky_decompose(crossprod(MATRIX))'; "
EQUIVALENTS: dict[str, str] = {
    "chol2inv(L)": "matrix[3,3] r = inverse(L * L');",
    "csr_to_dense_matrix(3, 3, to_vector({1.5, 2.0, a}), {1, 3, 2}, {1, 2, 3, 4})": "matrix[3,3] r = [[1.5, 0, 0], [0, 0, 2], [0, a, 0]];",
    "determinant(A)": "real r = A[1] * [A[2, 2] * A[3, 3] - A[2, 3] * A[3, 2], A[2, 3] * A[3, 1] - A[2, 1] * A[3, 3],"
    " A[2, 1] * A[3, 2] - A[2, 2] * A[3, 1]]';",
    "discrete_range_cdf(N1a | zero, seven)": "real r = 1; for (x1 in 1:3) r *= (N1a[x1] - zero + 1.0) / (seven - zero + 1);",
    "discrete_range_cdf(N1s | zero, seven)": "real r = (N1s - zero + 1.0) / (seven - zero + 1);",
    "discrete_range_lcdf(N1a | zero, seven)": "real r = 0; for (x1 in 1:3) r += log((N1a[x1] - zero + 1.0) / (seven - zero + 1));",
    "discrete_range_lcdf(N1s | zero, seven)": "real r = log((N1s - zero + 1.0) / (seven - zero + 1));",
    "distance(v, rv)": "real r = sqrt(dot_self(v - rv'));",
    "distance(v, w)": "real r = sqrt(squared_distance(v, w));",
    "function: recursive on ranges": "real r = v[1] + 2 * (v[2] + 2 * v[3]);",
    "generalized_inverse(A)": "matrix[3,3] r = inverse_spd(crossprod(A)) * A';",
    "gp_dot_prod_cov(av, a)": "matrix[2,2] r; for (x1 in 1:2) for (x2 in 1:2) r[x1, x2] = square(a) + dot_product(av[x1], av[x2]);",
    "gp_dot_prod_cov(ra, a)": "matrix[3,3] r = square(a) + to_vector(ra) * to_row_vector(ra);",
    "gp_exp_quad_cov(ra, rp, a, b)": "matrix[3,3] r; for (x1 in 1:3) for (x2 in 1:3)"
    " r[x1, x2] = square(a) * exp(-0.5 * square((ra[x1] - rp[x2]) / b));",
    "gp_periodic_cov(ra, a, b, 1.7)": "matrix[3,3] r; for (x1 in 1:3) for (x2 in 1:3)"
    " r[x1, x2] = square(a) * exp(-2 * square(sin(pi() * (ra[x1] - ra[x2]) / 1.7) / b));",
    "hypergeometric_2F1(a, b, 2.5, u)": "real r = 1; real x1 = 1;"
    " for (x2 in 0:80) { x1 *= (a + x2) * (b + x2) / (2.5 + x2) * u / (x2 + 1); r += x1; }",
    "inc_beta(a, b, u)": "real r = beta_cdf(u | a, b);",
    "int_step(a)": "int r = a > 0;",
    "int_step(minus)": "int r = minus > 0;",
    "inv_inc_beta(a, b, u)": "real r = 0.1; for (x1 in 1:50) r -= (beta_cdf(r | a, b) - u) / exp(beta_lpdf(r | a, b));",
    "log_determinant_spd(S)": "real r = log_determinant(S);",
    "log_mix(p, av)": "real r = log_sum_exp(log(p) + av[1]) + log_sum_exp(log(p) + av[2]);",
    "log_mix(p, ra)": "real r = log_sum_exp(log(p) + to_vector(ra));",
    "log_mix(p, v)": "real r = log_sum_exp(log(p) + v);",
    "log_mix(to_row_vector(p), rv)": "real r = log_sum_exp(log(p) + rv');",
    "matrix_exp_multiply(A, m)": "matrix[3,2] r = matrix_exp(A) * m;",
    "matrix_power(A, 3)": "matrix[3,3] r = A * A * A;",
    "norm1(ra)": "real r = sum(abs(ra));",
    "norm1(rv)": "real r = sum(abs(rv));",
    "norm1(v)": "real r = sum(abs(v));",
    "norm2(ra)": "real r = sqrt(dot_self(to_vector(ra)));",
    "norm2(rv)": "real r = sqrt(dot_self(rv));",
    "norm2(v)": "real r = sqrt(dot_self(v));",
    "norm2(v) > 1 && a < 1 ? 1.5 : 2.5": "real r = 2.5; if (dot_self(v) > 1) if (a < 1) r = 1.5;",
    "qr_Q(A)": f"{_QR}matrix[3,3] r = A / up;".replace("COLS", "3").replace("MATRIX", "A"),
    "qr_R(m)": f"{_QR}matrix[3,2] r = append_row(up, rep_row_vector(0, 2));".replace("COLS", "2").replace(
        "MATRIX", "m"
    ),
    "qr_thin_Q(A)": f"{_QR}matrix[3,3] r = A / up;".replace("COLS", "3").replace("MATRIX", "A"),
    "qr_thin_Q(m)": f"{_QR}matrix[3,2] r = m / up;".replace("COLS", "2").replace("MATRIX", "m"),
    "qr_thin_R(m)": f"{_QR}matrix[2,2] r = up;".replace("COLS", "2").replace("MATRIX", "m"),
    "quantile(ra, 0.55)": "array[3] real x1 = sort_asc(ra); real r = x1[2] + 0.1 * (x1[3] - x1[2]);",
    "quantile(rv, 0.3)": "row_vector[3] x1 = sort_asc(rv); real r = x1[1] + 0.6 * (x1[2] - x1[1]);",
    "quantile(v5, 0.3)": "vector[5] x1 = sort_asc(v5); real r = x1[2] + 0.2 * (x1[3] - x1[2]);",
    "quantile(v5, {0.1, 0.5, 0.77})": "vector[5] x1 = sort_asc(v5);"
    " array[3] real r = {x1[1] + 0.4 * (x1[2] - x1[1]), x1[3], x1[4] + 0.08 * (x1[5] - x1[4])};",
    "scale_matrix_exp_multiply(a, A, S)": "matrix[3,3] r = matrix_exp(a * A) * S;",
    "singular_values(m)": "vector[2] r = reverse(sqrt(eigenvalues_sym(crossprod(m))));",
    "sub_row(A, 3, 2, 2)": "row_vector[2] r = A[3, 2:3];",
    "symmetrize_from_lower_tri(A)": "matrix[3,3] r = A; for (x1 in 1:2) for (x2 in (x1 + 1):3) r[x1, x2] = A[x2, x1];",
    "to_array_2d(m)": "array[3,2] real r; for (x1 in 1:3) for (x2 in 1:2) r[x1, x2] = m[x1, x2];",
    "to_int(2.7)": "int r = 0; while (r + 1 <= 2.7) r += 1;",
    "trace(A)": "real r = sum(diagonal(A));",
    "trace_gen_quad_form(P, S, m)": "real r = sum(diagonal(P * m' * S * m));",
    "trace_quad_form(S, m)": "real r = sum(diagonal(m' * S * m));",
}


def equivalents(bank: Iterable[Case]) -> Iterator[Case]:
    """The cases of a bank that have an equivalent, with it in the place of their code."""
    for case in bank:
        if case.name in EQUIVALENTS:
            yield replace(case, code=EQUIVALENTS[case.name], functions="", vary=None)
