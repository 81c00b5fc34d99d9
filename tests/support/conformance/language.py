"""Statements and expressions: indexes, loops, branches, functions, scopes."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .cases import Case

# name: (Stan that declares r, numpy)
READS = {
    "range of a vector": ("vector[2] r = v[2:3];", "v[1:]"),
    "range from the start": ("vector[2] r = v[:2];", "v[:2]"),
    "range to the end": ("vector[2] r = v[2:];", "v[1:]"),
    "whole by a colon": ("vector[3] r = v[:];", "v"),
    "empty range": ("vector[0] r = v[3:2];", "v[:0]"),
    "range with computed ends": ("vector[2] r = v5[i + 1:i * 2];", "v5[2:4]"),
    "entries by a multi-index": ("vector[3] r = v[k];", "v[k - 1]"),
    "entries by a literal multi-index": ("vector[4] r = v[{2, 2, 1, 3}];", "v[[1, 1, 0, 2]]"),
    "entries more often than there are": ("vector[5] r = w[again];", "w[again - 1]"),
    "entries of a row vector by a multi-index": ("row_vector[3] r = rv[k];", "rv[k - 1]"),
    "range of a row vector": ("row_vector[2] r = rv[1:2];", "rv[:2]"),
    "entries of real arrays by a multi-index": ("array[3] real r = ra[k];", "ra[k - 1]"),
    "range of a real array": ("array[2] real r = ra[2:];", "ra[1:]"),
    "a row of a matrix": ("row_vector[2] r = m[i];", "m[1]"),
    "a row of a matrix by a colon": ("row_vector[2] r = m[2, :];", "m[1]"),
    "a row of a matrix, omitted": ("row_vector[2] r = m[2, ];", "m[1]"),
    "a column of a matrix": ("vector[3] r = m[, i];", "m[:, 1]"),
    "rows of a matrix by a range": ("matrix[2,2] r = m[2:3];", "m[1:]"),
    "rows of a matrix by a multi-index": ("matrix[3,2] r = m[k];", "m[k - 1]"),
    "rows of a matrix by a multi-index and a colon": ("matrix[3,2] r = m[k, :];", "m[k - 1]"),
    "columns of a matrix by a multi-index": ("matrix[2,3] r = mt[, k];", "mt[:, k - 1]"),
    "block by two ranges": ("matrix[2,2] r = A[1:2, 2:3];", "A[:2, 1:]"),
    "block by two multi-indexes": ("matrix[2,3] r = A[few, k];", "A[np.ix_(few - 1, k - 1)]"),
    "block by range and multi-index": ("matrix[2,2] r = A[2:, few];", "A[1:][:, few - 1]"),
    "part of a row": ("row_vector[2] r = A[3, 2:];", "A[2, 1:]"),
    "part of a column": ("vector[2] r = A[:2, 3];", "A[:2, 2]"),
    "part of a column by a multi-index": ("vector[2] r = A[few, 1];", "A[few - 1, 0]"),
    "entry of a matrix twice indexed": ("real r = m[3][2];", "m[2, 1]"),
    "entry of a range": ("real r = v[2:3][2];", "v[2]"),
    "range of a range": ("vector[2] r = v5[2:4][2:3];", "v5[2:4]"),
    "entry of a multi-index": ("real r = v[k][1];", "v[2]"),
    "multi-index of a multi-index": ("vector[3] r = v[k][k];", "v[k - 1][k - 1]"),
    "an index that is indexed": ("real r = v[k[i]];", "v[0]"),
    "an index that is indexed twice": ("real r = v[k[k[1]]];", "v[1]"),
    "entry of a vector in an array": ("real r = av[2, 3];", "av[1, 2]"),
    "entry of a vector in an array, twice": ("real r = av[2][3];", "av[1, 2]"),
    "one entry of all vectors of an array": ("array[2] real r = av[, 2];", "av[:, 1]"),
    "range of all vectors of an array": ("array[2] vector[2] r = av[:, 2:3];", "av[:, 1:]"),
    "vectors of an array by a multi-index": ("array[3] vector[3] r = av[{2, 1, 2}];", "av[[1, 0, 1]]"),
    "row vectors of an array": ("array[1] row_vector[3] r = arv[2:2];", "arv[1:]"),
    "a matrix of an array": ("matrix[2,2] r = am[2];", "am[1]"),
    "entry of a matrix of an array": ("real r = am[2, 1, 2];", "am[1, 0, 1]"),
    "a row of a matrix of an array": ("row_vector[2] r = am[1, 2];", "am[0, 1]"),
    "a column of a matrix of an array": ("vector[2] r = am[1, , 2];", "am[0, :, 1]"),
    "one entry of all matrices of an array": ("array[2] real r = am[, 2, 1];", "am[:, 1, 0]"),
    "an array of arrays of vectors": ("vector[2] r = avv[2, 1];", "avv[1, 0]"),
    "entry of an array of arrays of vectors": ("real r = avv[2, 1, 2];", "avv[1, 0, 1]"),
    "column of an array of arrays of vectors": ("array[2] vector[2] r = avv[, 2];", "avv[:, 1]"),
    "a row of a real array": ("array[3] real r = rb[2];", "rb[1]"),
    "a column of a real array": ("array[2] real r = rb[, 3];", "rb[:, 2]"),
    "block of a real array": ("array[2,2] real r = rb[:, 2:];", "rb[:, 1:]"),
    "block of a real array by multi-indexes": (
        "array[2,2] real r = rb[{2, 1}, few];",
        "rb[np.ix_([1, 0], few - 1)]",
    ),
    "an array of three dimensions cut": ("array[2,2] real r = rc[, 2];", "rc[:, 1]"),
    "an array of three dimensions, middle": ("array[2] real r = rc[2, :, 1];", "rc[1, :, 0]"),
    "integers of three dimensions cut": ("array[2,2] int r = c[, , 2];", "c[:, :, 1]"),
    "integers of three dimensions, one row": ("array[2] int r = c[2, 1];", "c[1, 0]"),
    "rows of integers by a multi-index": ("array[2,2] int r = d[few];", "d[few - 1]"),
    "column of integers": ("array[3] int r = d[, 2];", "d[:, 1]"),
    "block of integers": ("array[2,1] int r = d[2:3, 1:1];", "d[1:, :1]"),
    "column of integers by a multi-index": ("array[2] int r = d[few, 2];", "d[few - 1, 1]"),
    "expression indexed": ("real r = (v + w)[2];", "(v + w)[1]"),
    "function's value indexed": ("vector[2] r = cumulative_sum(v)[2:];", "np.cumsum(v)[1:]"),
    "transposed and indexed": ("row_vector[3] r = (m')[2];", "m[:, 1]"),
    "array literal indexed": ("real r = {a, b, neg}[i];", "b"),
    "row vector literal": ("row_vector[3] r = [a, b, neg];", "np.array([a, b, neg])"),
    "vector literal": ("vector[3] r = [a, b, neg]';", "np.array([a, b, neg])"),
    "matrix literal of rows": ("matrix[2,2] r = [[a, b], [neg, 1]];", "np.array([[a, b], [neg, 1]])"),
    "matrix literal of row vectors": ("matrix[2,3] r = [rv, rw];", "np.stack([rv, rw])"),
    "array literal of vectors": ("array[2] vector[3] r = {v, w};", "np.stack([v, w])"),
    "array literal of arrays": ("array[2,2] real r = {{a, b}, {neg, 1}};", "np.array([[a, b], [neg, 1]])"),
    "array literal of integers and reals": ("array[3] real r = {1, b, i};", "np.array([1, b, 2])"),
    "array literal of integer arrays": ("array[2,3] int r = {k, {1, i, seven}};", "np.array([k, [1, 2, 7]])"),
    "array literal of matrices": ("array[2] matrix[2,2] r = {B, P};", "np.stack([B, P])"),
    "integers as reals": ("array[3] real r = k;", "k"),
    "two-dimensional integers as reals": ("array[3,2] real r = d;", "d"),
    "vector of integers as reals": ("vector[2] r = [i, n]';", "np.array([2, 3])"),
}
WRITES = {
    "entry of a vector": ("vector[3] r = v; r[2] = a;", "np.array([v[0], a, v[2]])"),
    "range of a vector": ("vector[3] r = v; r[2:3] = w[1:2];", "np.array([v[0], w[0], w[1]])"),
    "vector by a multi-index": ("vector[3] r; r[k] = w;", "w[[1, 2, 0]]"),
    "vector by a repeated multi-index": (
        "vector[3] r = v; r[{1, 1, 2}] = w;",
        "np.array([w[1], w[2], v[2]])",
    ),
    "vector from itself turned": ("vector[3] r = v; r[1:3] = r[{3, 2, 1}];", "v[::-1]"),
    "vector shifted within itself": ("vector[3] r = v; r[2:3] = r[1:2];", "np.array([v[0], v[0], v[1]])"),
    "array shifted within itself": (
        "array[3] real r = ra; r[2:3] = r[1:2];",
        "np.array([ra[0], ra[0], ra[1]])",
    ),
    "integers shifted within themselves": ("array[3] int r = k; r[2:3] = r[1:2];", "np.array([3, 3, 1])"),
    "swap by a temporary": ("vector[3] r = v; real s = r[1]; r[1] = r[3]; r[3] = s;", "v[[2, 1, 0]]"),
    "matrix from its transpose": ("matrix[3,3] r = A; r = r';", "A.T"),
    "rows of a matrix swapped": ("matrix[3,3] r = A; r[{1, 2}] = r[{2, 1}];", "A[[1, 0, 2]]"),
    "row of a matrix": ("matrix[3,2] r = m; r[2] = r2;", "np.stack([m[0], r2, m[2]])"),
    "row of a matrix by a colon": ("matrix[3,2] r = m; r[2, :] = r2;", "np.stack([m[0], r2, m[2]])"),
    "column of a matrix": ("matrix[3,2] r = m; r[, 1] = v;", "np.stack([v, m[:, 1]], 1)"),
    "part of a column": ("matrix[3,3] r = A; r[2:3, 1] = v2;", "np.column_stack([[A[0, 0], *v2], A[:, 1:]])"),
    "part of a row": ("matrix[3,3] r = A; r[1, 2:] = r2;", "np.vstack([[A[0, 0], *r2], A[1:]])"),
    "block of a matrix": ("matrix[3,3] r = A; r[1:2, 2:3] = B;", "np.block([[A[:2, :1], B], [A[2:]]])"),
    "block of a matrix by multi-indexes": (
        "matrix[3,3] r = rep_matrix(a, 3, 3); r[few, {1, 2}] = B;",
        "np.array([[B[1, 0], B[1, 1], a], [a, a, a], [B[0, 0], B[0, 1], a]])",
    ),
    "rows of a matrix by a multi-index": ("matrix[3,2] r = m; r[few] = B;", "np.stack([B[1], m[1], B[0]])"),
    "entry of a matrix twice indexed": (
        "matrix[3,2] r = m; r[2][1] = a;",
        "np.array([m[0], [a, m[1, 1]], m[2]])",
    ),
    "entries of a matrix by two loops": (
        "matrix[2,3] r; for (x1 in 1:2) for (x2 in 1:3) r[x1, x2] = m[x2, x1] + x1;",
        "m.T + np.array([[1], [2]])",
    ),
    "vector of an array": ("array[2] vector[3] r = av; r[2] = v;", "np.stack([av[0], v])"),
    "entry of a vector of an array": (
        "array[2] vector[3] r = av; r[2, 1] = a;",
        "np.stack([av[0], [a, *av[1, 1:]]])",
    ),
    "entry of a vector of an array, twice": (
        "array[2] vector[3] r = av; r[2][1] = a;",
        "np.stack([av[0], [a, *av[1, 1:]]])",
    ),
    "range of a vector of an array": (
        "array[2] vector[3] r = av; r[1, 2:3] = v2;",
        "np.stack([[av[0, 0], *v2], av[1]])",
    ),
    "one entry of all vectors of an array": (
        "array[2] vector[3] r = av; r[, 2] = {a, b};",
        "np.stack([av[:, 0], [a, b], av[:, 2]], 1)",
    ),
    "vectors of an array by a multi-index": ("array[2] vector[3] r; r[{2, 1}] = av;", "av[::-1]"),
    "row vector of an array": ("array[2] row_vector[3] r = arv; r[1] = rv;", "np.stack([rv, arv[1]])"),
    "matrix of an array": ("array[2] matrix[2,2] r = am; r[1] = B;", "np.stack([B, am[1]])"),
    "row of a matrix of an array": (
        "array[2] matrix[2,2] r = am; r[1, 2] = r2;",
        "np.stack([np.stack([am[0, 0], r2]), am[1]])",
    ),
    "column of a matrix of an array": (
        "array[2] matrix[2,2] r = am; r[2, , 1] = v2;",
        "np.stack([am[0], np.stack([v2, am[1, :, 1]], 1)])",
    ),
    "entry of a matrix of an array": (
        "array[2] matrix[2,2] r = am; r[2, 1, 2] = a;",
        "np.stack([am[0], [[am[1, 0, 0], a], am[1, 1]]])",
    ),
    "array of arrays of vectors": (
        "array[2,2] vector[2] r = avv; r[1, 2] = v2;",
        "np.stack([[avv[0, 0], v2], avv[1]])",
    ),
    "row of an array of arrays of vectors": (
        "array[2,2] vector[2] r = avv; r[2] = avv[1];",
        "np.stack([avv[0], avv[0]])",
    ),
    "row of a real array": ("array[2,3] real r = rb; r[1] = ra;", "np.stack([ra, rb[1]])"),
    "row of a real array by a loop": ("array[2,3] real r; for (x1 in 1:2) r[x1] = ra;", "np.stack([ra, ra])"),
    "column of a real array": (
        "array[2,3] real r = rb; r[, 2] = {a, b};",
        "np.stack([rb[:, 0], [a, b], rb[:, 2]], 1)",
    ),
    "block of a real array": (
        "array[2,3] real r = rb; r[1:2, 2:3] = {{a, b}, {neg, 1}};",
        "np.column_stack([rb[:, 0], [[a, b], [neg, 1]]])",
    ),
    "plane of three dimensions": ("array[2,2,2] real r = rc; r[2] = r[1];", "np.stack([rc[0], rc[0]])"),
    "row of three dimensions": (
        "array[2,2,2] real r = rc; r[1, 2] = {a, b};",
        "np.stack([[rc[0, 0], [a, b]], rc[1]])",
    ),
    "plane of integers": ("array[2,2,2] int r = c; r[1] = r[2];", "np.stack([c[1], c[1]])"),
    "row of integers of three dimensions": (
        "array[2,2,2] int r = c; for (x1 in 1:2) r[x1, 2] = {x1, 9};",
        "np.array([[[1, 2], [1, 9]], [[5, 6], [2, 9]]])",
    ),
    "integers row by row, three columns": (
        "array[2,3] int r; for (x1 in 1:2) r[x1] = {x1, 2 * x1, 3 * x1};",
        "np.array([[1, 2, 3], [2, 4, 6]])",
    ),
    "row of integers from another": ("array[2,3] int r = e; r[1] = r[2];", "np.stack([e[1], e[1]])"),
    "row of integers from a column": ("array[2,3] int r = e; r[1] = d[, 2];", "np.stack([d[:, 1], e[1]])"),
    "row of integers, then an outcome": (
        "array[2,3] int q_; for (x1 in 1:2) q_[x1] = {1, 0, x1}; real r = poisson_lpmf(q_[2] | 1.5);",
        "stats.poisson.logpmf([1, 0, 2], 1.5).sum()",
    ),
    "whole array of integers from a function": ("array[3] int r; r = sort_asc(k);", "np.array([1, 2, 3])"),
    "promoted to an array of reals": ("array[3] real r = ra; r[1] = i; r[2:3] = few;", "np.array([2, 3, 1])"),
    "promoted row": ("array[2,3] real r = rb; r[2] = k;", "np.stack([rb[0], k])"),
    "compound sum": ("real r = a; r += b; r -= 2; r *= neg; r /= i;", "(a + b - 2) * neg / 2"),
    "compound with integers": ("int r = i; r += 5; r *= 3; r -= 1; r /= 4;", "5"),
    "compound with a vector": ("vector[3] r = v; r += w; r -= a; r *= b; r /= 2;", "(v + w - a) * b / 2"),
    "compound with an entry": (
        "vector[3] r = v; r[2] *= r[1]; r[3] += r[2];",
        "np.array([v[0], v[1] * v[0], v[2] + v[1] * v[0]])",
    ),
    "compound with a range": (
        "vector[3] r = v; r[1:2] += v2;",
        "np.array([v[0] + v2[0], v[1] + v2[1], v[2]])",
    ),
    "compound entry by entry": ("vector[3] r = v; r .*= w; r ./= vp;", "v * w / vp"),
    "compound with a matrix": ("matrix[3,3] r = A; r *= S; r += 1;", "A @ S + 1"),
    "compound with a row of a matrix": (
        "matrix[3,2] r = m; r[2] += r2; r[, 1] *= b;",
        "(m + np.outer([0, 1, 0], r2)) * [b, 1]",
    ),
    "compound with a vector of an array": (
        "array[2] vector[3] r = av; r[1] += v; r[2, 2] -= a;",
        "av + np.stack([v, [0, -a, 0]])",
    ),
    "compound with an array entry": (
        "array[2,3] real r = rb; r[1, 2] += a; r[2, 3] *= b;",
        "rb + np.array([[0, a, 0], [0, 0, rb[1, 2] * (b - 1)]])",
    ),
    "compound with an entry of integers": (
        "array[2,3] int r = e; r[1, 2] += 4; r[2, 1] -= i;",
        "e + np.array([[0, 4, 0], [-2, 0, 0]])",
    ),
    "compound at an index that is indexed": (
        "array[3] int r = rep_array(0, 3); for (x1 in 1:5) r[again[x1]] += counts[x1];",
        "np.array([2, 5, 7])",
    ),
    "unrelated copy": ("vector[3] q_ = v; vector[3] r = q_; q_[1] = 9;", "v"),
    "unrelated copy of integers": (
        "array[3,2] int q_ = d; array[3,2] int r = q_; q_[1, 1] = 9; q_[2, 2] = 8;",
        "d",
    ),
    "unrelated copy of an array of vectors": (
        "array[2] vector[3] q_ = av; array[2] vector[3] r = q_; q_[1, 1] = 9;",
        "av",
    ),
    "chained through variables": (
        "vector[3] q_ = v; q_[2] = q_[1] * 2; vector[3] r = q_; r[1] = q_[2] + r[2];",
        "np.array([4 * v[0], 2 * v[0], v[2]])",
    ),
}
LOOPS = {
    "over entries of a vector": ("real r = 0; for (x1 in v) r = 2 * r + x1;", "4 * v[0] + 2 * v[1] + v[2]"),
    "over entries of a row vector": (
        "real r = 0; for (x1 in rv) r = 2 * r + x1;",
        "4 * rv[0] + 2 * rv[1] + rv[2]",
    ),
    # Stan's compiler goes row by row; its manual says column by column
    "over entries of a matrix": ("real r = 0; for (x1 in m) r = 1.5 * r + x1;", "np.polyval(m.ravel(), 1.5)"),
    "over real arrays": ("real r = 0; for (x1 in ra) r = 2 * r + x1;", "np.polyval(ra, 2)"),
    "over rows of real arrays": ("real r = 0; for (x1 in rb) r = 2 * r + x1[2];", "2 * rb[0, 1] + rb[1, 1]"),
    "over vectors of an array": (
        "real r = 0; for (x1 in av) r = 2 * r + sum(x1 .* v);",
        "2 * av[0] @ v + av[1] @ v",
    ),
    "over row vectors of an array": (
        "real r = 0; for (x1 in arv) r = 2 * r + x1 * v;",
        "2 * arv[0] @ v + arv[1] @ v",
    ),
    "over matrices of an array": ("matrix[2,2] r = B; for (x1 in am) r = r * x1;", "B @ am[0] @ am[1]"),
    "over integers": ("int r = 0; for (x1 in k) r = 10 * r + x1;", "312"),
    "over rows of integers": (
        "int r = 0; for (x1 in d) r = 10 * r + x1[2] - x1[1] + sum(x1);",
        "(4 * 10 + 8) * 10 + 12",
    ),
    "over rows of two rows of integers": ("int r = 0; for (x1 in e) r = 10 * r + x1[3];", "42"),
    "over planes of integers": ("int r = 0; for (x1 in c) r = 10 * r + x1[1, 2] + x1[2, 1];", "5 * 10 + 13"),
    "over rows of rows": (
        "int r = 0; for (x1 in d) for (x2 in x1) r = 2 * r + x2;",
        "np.polyval([1, 2, 3, 4, 5, 6], 2)",
    ),
    "over nothing": ("int r = 7; for (x1 in none) r += x1;", "7"),
    "over an empty range": ("int r = 7; for (x1 in 3:2) r += x1;", "7"),
    "over a range with computed ends": ("int r = 0; for (x1 in (i + 1):(seven - i)) r = 10 * r + x1;", "345"),
    "over a literal array": ("real r = 0; for (x1 in {a, b}) r = 3 * r + x1;", "3 * a + b"),
    "over a function's value": (
        "real r = 0; for (x1 in sort_asc(v)) r = 2 * r + x1;",
        "np.polyval(np.sort(v), 2)",
    ),
    "over negative numbers": ("int r = 0; for (x1 in minus:-1) r = 10 * r - x1;", "321"),
    "nested with an inner end": (
        "int r = 0; for (x1 in 1:n) for (x2 in 1:x1) r += 10 * x1 + x2;",
        "11 + 21 + 22 + 31 + 32 + 33",
    ),
    "nested with an inner start": (
        "real r = 0; for (x1 in 1:3) for (x2 in x1:3) r += A[x1, x2];",
        "np.triu(A).sum()",
    ),
    "ragged by segments": (
        "array[3] real r; int at = 1; for (x1 in 1:3) { r[x1] = sum(segment(v5, at, sizes[x1])); at += sizes[x1]; }",
        "np.array([v5[:2].sum(), 0, v5[2:].sum()])",
    ),
    "ragged by ranges": (
        "array[3] real r; int at = 0; for (x1 in 1:3) { r[x1] = sum(v5[at + 1:at + sizes[x1]]); at += sizes[x1]; }",
        "np.array([v5[:2].sum(), 0, v5[2:].sum()])",
    ),
    "autoregression": (
        "vector[5] r; r[1] = v5[1]; for (x1 in 2:5) r[x1] = a * r[x1 - 1] + v5[x1];",
        "recursion(v5, a)",
    ),
    "running product": ("real r = 1; for (x1 in 1:n) r *= v[x1] + x1;", "np.prod(v + [1, 2, 3])"),
    "stick breaking": (
        "vector[3] r; real left = 1; for (x1 in 1:2) { r[x1] = left * p[x1]; left -= r[x1]; } r[3] = left;",
        "np.array([p[0], (1 - p[0]) * p[1], (1 - p[0]) * (1 - p[1])])",
    ),
    "break": ("real r = 0; for (x1 in 1:3) { if (x1 == i) break; r += v[x1]; }", "v[0]"),
    "break by a real": ("int r = 0; for (x1 in v5) { r += 1; if (x1 > 1) break; }", "3"),
    "continue": ("real r = 0; for (x1 in 1:3) { if (x1 == i) continue; r += v[x1]; }", "v[0] + v[2]"),
    "break of the inner loop only": (
        "int r = 0; for (x1 in 1:3) { for (x2 in 1:3) { if (x2 > x1) break; r += 1; } r *= 10; }",
        "1230",
    ),
    "continue of the inner loop": (
        "int r = 0; for (x1 in 1:3) { for (x2 in 1:3) { if (x2 == x1) continue; r += x2; } r *= 2; }",
        "(((0 + 5) * 2 + 4) * 2 + 3) * 2",
    ),
    "while": ("int r = 1; while (r < 50) r *= 3;", "81"),
    "while on reals": (
        "real r = a; int q_ = 0; while (q_ < 4) { r = r * 0.5 + b; q_ += 1; }",
        "a / 16 + b * (1 + 0.5 + 0.25 + 0.125)",
    ),
    "while without a trip": ("int r = 5; while (r < 2) r += 1;", "5"),
    "while with break and continue": (
        "int r = 0; int q_ = 0; while (1) { q_ += 1; if (q_ == 3) continue; if (q_ > 5) break; r += q_; }",
        "12",
    ),
    "while in a loop": (
        "int r = 0; for (x1 in k) { int q_ = x1; while (q_ > 0) { r += q_; q_ -= 1; } }",
        "10",
    ),
    "bisection by while": (
        "real low = 0; real r = 2; while (r - low > 1e-3) { real mid = 0.5 * (low + r); if (square(mid) > 2) r = mid; else low = mid; }",
        "bisected(2.0)",
    ),
}
BRANCHES = {
    "if": ("real r = a; if (i == 2) r = b;", "b"),
    "if not": ("real r = a; if (i == 3) r = b;", "a"),
    "if else": ("real r; if (i > 2) r = a; else r = b;", "b"),
    "else if": ("real r; if (i > 2) r = a; else if (n > 2) r = neg; else r = b;", "neg"),
    "if on reals": (
        "vector[3] r = v; if (a < b) { r[1] = 1; } else { r[2] = 1; }",
        "np.array([1, v[1], v[2]])",
    ),
    "if on a real that is not zero": ("real r = 1; if (i - 2) r = a; if (i) r += b;", "1 + b"),
    "nested if": ("int r = 0; if (i) { if (zero) r = 1; else r = 2; }", "2"),
    "conjunction is short-circuited": ("int r = 3; if (zero > 0 && k[zero] > 1) r = 4;", "3"),
    "disjunction is short-circuited": ("int r = 3; if (zero == 0 || k[zero] > 1) r = 4;", "4"),
    "if in a loop": ("int r = 0; for (x1 in 1:3) if (k[x1] > 1) r += x1; else r += 10;", "14"),
    "branch by sign": (
        "vector[3] r; for (x1 in 1:3) { if (v[x1] > 0) r[x1] = log(v[x1]); else r[x1] = exp(v[x1]); }",
        "np.where(v > 0, np.log(np.abs(v)), np.exp(v))",
    ),
    "conditional of containers": ("vector[3] r = i == 2 ? v : w;", "v"),
    "conditional of arrays": ("array[3] int r = n == 2 ? {1, 2, 3} : k;", "k"),
    "conditional of rows of integers": ("array[2] int r = i == 2 ? d[3] : d[1];", "d[2]"),
    "conditional on a parameter": (
        "real r = 0; for (x1 in 1:3) r += v[x1] > 0 ? v[x1] * a : w[x1];",
        "np.where(v > 0, v * a, w).sum()",
    ),
    "conditional chooses an index": ("real r = v[a > b ? 1 : 3];", "v[2]"),
    "conditional chooses a size": ("vector[i > 1 ? 3 : 1] q_ = v; real r = q_[3];", "v[2]"),
    "conditional mixes integers and reals": ("real r = (i == 1 ? 5 : 2.5) / 2;", "1.25"),
    "logical operators on reals": ("int r = (a > 0 && neg < 0) + (zero || b > 1) + !(a > b);", "3"),
}
SCOPES = {
    "compound declaration": ("int x1 = 1, x2 = 2; real r = a * x1 + x2;", "a + 2"),
    "compound declaration of vectors": (
        "vector[3] x1 = v, x2; x2 = w; vector[3] r = x1 + 2 * x2;",
        "v + 2 * w",
    ),
    "compound declaration of arrays": (
        "array[3] int x1 = k, x2 = {4, 5, 6}; array[3] int r = x2; r[1] = x1[1];",
        "np.array([3, 5, 6])",
    ),
    "declared in a loop": (
        "real r = 0; for (x1 in 1:3) { real q_ = v[x1]; q_ *= 2; r += q_; }",
        "2 * v.sum()",
    ),
    "declared in a loop without a value": (
        "array[3] int r; for (x1 in 1:3) { array[2] int q_; q_[1] = x1; q_[2] = 2; r[x1] = sum(q_); }",
        "np.array([3, 4, 5])",
    ),
    "same name in two scopes": (
        "real r = 0; { real q_ = a; r += q_; } { real q_ = b; r += 2 * q_; }",
        "a + 2 * b",
    ),
    "same name with another type": (
        "real r = 0; { int q_ = 3; r += q_; } { vector[3] q_ = v; r += q_[1]; }",
        "3 + v[0]",
    ),
    "same loop variable twice": ("int r = 0; for (x1 in 1:2) r += x1; for (x1 in 5:6) r += 10 * x1;", "113"),
    "size from a local": ("int q_ = i + 1; vector[q_] r = rep_vector(a, q_);", "np.full(3, a)"),
    "size from data's sizes": ("matrix[rows(m), cols(mt)] r = m * mt;", "m @ mt"),
    "size from a function": ("array[max(k)] int r = k;", "k"),
    "array sized by an array": ("array[sizes[1]] real r = {a, b};", "np.array([a, b])"),
    "empty containers": (
        "vector[zero] q_; matrix[zero, 3] x1; real r = sum(q_) + num_elements(x1) + a;",
        "a",
    ),
    "empty statement": ("real r = a;;", "a"),
    "comments": ("real r = a; // not b\n /* nor */ r += 1;\n", "a + 1"),
    "profile": ('real r; profile("part") { real q_ = a; r = q_ * 2; }', "2 * a"),
    "print": ('real r = a; if (zero) print("a is ", a, v);', "a"),
    "reject that is not met": ('real r = a; if (zero) reject("a is ", a);', "a"),
    "names like functions": ("real mean_a = a; real sd_b = b; real r = mean_a - sd_b;", "a - b"),
}

# name: (functions block, Stan that declares r, numpy)
FUNCTIONS = {
    "of a real": ("real f(real x1) { return 2 * x1; }", "real r = f(a);", "2 * a"),
    "of an integer": ("int f(int x1) { return x1 * x1; }", "int r = f(n);", "9"),
    "an integer given as a real": ("real f(real x1) { return x1 / 2; }", "real r = f(n);", "1.5"),
    "integers given as reals": ("real f(array[] real x1) { return x1[1] / 2; }", "real r = f(k);", "1.5"),
    "with two returns": (
        "real f(real x1) { if (x1 > 1) return x1; return -x1; }",
        "real r = f(a) + 10 * f(b);",
        "-a + 10 * b",
    ),
    "with else returns": (
        "int f(int x1) { if (x1 > 2) { return 1; } else { return 2; } }",
        "int r = f(i) + 10 * f(n);",
        "12",
    ),
    "return from a loop": (
        "int f(array[] int x1) { for (x2 in 1:size(x1)) if (x1[x2] == 2) return x2; return 0; }",
        "int r = f(k);",
        "3",
    ),
    "return from a nested loop": (
        "int f(array[,] int x1) { for (x2 in 1:3) { for (x3 in 1:2) { if (x1[x2, x3] > 3) return 10 * x2 + x3; } } return 0; }",
        "int r = f(d);",
        "22",
    ),
    "return from a while": (
        "int f(int x1) { int q_ = 1; while (1) { q_ *= 2; if (q_ > x1) return q_; } return 0; }",
        "int r = f(seven);",
        "8",
    ),
    "recursive": (
        "int f(int x1); int f(int x1) { return x1 <= 1 ? 1 : x1 * f(x1 - 1); }",
        "int r = f(5);",
        "120",
    ),
    "recursive by branches": (
        "int f(int x1); int f(int x1) { if (x1 < 2) return x1; return f(x1 - 1) + f(x1 - 2); }",
        "int r = f(seven);",
        "13",
    ),
    "recursive on reals": (
        "real f(real x1, int x2); real f(real x1, int x2) { if (x2 == 0) return 1; return x1 * f(x1, x2 - 1) + 1; }",
        "real r = f(a, 3);",
        "a * (a * (a + 1) + 1) + 1",
    ),
    "recursive on ranges": (
        "real f(vector x1); real f(vector x1) { if (size(x1) == 0) return 0; return x1[1] + 2 * f(x1[2:]); }",
        "real r = f(v);",
        "v[0] + 2 * v[1] + 4 * v[2]",
    ),
    "mutually recursive": (
        "int g(int x1); int f(int x1) { return x1 == 0 ? 1 : g(x1 - 1); } int g(int x1) { return x1 == 0 ? 0 : f(x1 - 1); }",
        "int r = 10 * f(4) + g(4);",
        "10",
    ),
    "overloaded by type": (
        "real f(real x1) { return x1; } real f(vector x1) { return 10 * x1[1]; } real f(array[] int x1) { return 100 * x1[1]; }",
        "real r = f(a) + f(v) + f(k);",
        "a + 10 * v[0] + 300",
    ),
    "overloaded by number": (
        "real f(real x1) { return x1; } real f(real x1, real x2) { return x1 * x2; }",
        "real r = f(a) + f(a, b);",
        "a + a * b",
    ),
    "overloaded integers and reals": (
        "real f(real x1) { return x1 / 2; } int f(int x1) { return 100 * x1; }",
        "real r = f(a) + f(i);",
        "a / 2 + 200",
    ),
    "calls another": (
        "real f(real x1) { return x1 + 1; } real g(real x1) { return f(f(x1)) * 2; }",
        "real r = g(a);",
        "(a + 2) * 2",
    ),
    "returns a vector": (
        "vector f(vector x1, real x2) { return x1 * x2; }",
        "vector[3] r = f(v, a);",
        "v * a",
    ),
    "returns a vector built in a loop": (
        "vector f(int x1, real x2) { vector[x1] q_; for (x3 in 1:x1) q_[x3] = x2 ^ x3; return q_; }",
        "vector[3] r = f(n, b);",
        "b ** np.arange(1, 4)",
    ),
    "returns a row vector": ("row_vector f(vector x1) { return x1'; }", "row_vector[3] r = f(v);", "v"),
    "returns a matrix": (
        "matrix f(vector x1, row_vector x2) { return x1 * x2; }",
        "matrix[3,3] r = f(v, rv);",
        "np.outer(v, rv)",
    ),
    "returns an array of integers": (
        "array[] int f(array[] int x1) { array[size(x1)] int q_; for (x2 in 1:size(x1)) q_[x2] = x1[x2] * x2; return q_; }",
        "array[3] int r = f(k);",
        "k * np.array([1, 2, 3])",
    ),
    "returns a two-dimensional array of integers": (
        "array[,] int f(int x1) { array[x1, 2] int q_; for (x2 in 1:x1) { q_[x2, 1] = x2; q_[x2, 2] = -x2; } return q_; }",
        "array[3,2] int r = f(n);",
        "np.outer([1, 2, 3], [1, -1])",
    ),
    "returns rows of integers": (
        "array[,] int f(array[,] int x1, array[] int x2) { return x1[x2]; }",
        "array[2,2] int r = f(d, few);",
        "d[few - 1]",
    ),
    "returns an array of reals": (
        "array[] real f(vector x1) { return {x1[1], x1[3]}; }",
        "array[2] real r = f(v);",
        "v[[0, 2]]",
    ),
    "returns an array of vectors": (
        "array[] vector f(vector x1) { array[2] vector[3] q_; q_[1] = x1; q_[2] = 2 * x1; return q_; }",
        "array[2] vector[3] r = f(v);",
        "np.stack([v, 2 * v])",
    ),
    "returns an array of matrices": (
        "array[] matrix f(matrix x1) { return {x1, x1'}; }",
        "array[2] matrix[2,2] r = f(B);",
        "np.stack([B, B.T])",
    ),
    "nested functions that return arrays": (
        "array[] int f(array[] int x1) { return append_array(x1, {sum(x1)}); } array[] int g(array[] int x1) { return f(f(x1)); }",
        "array[5] int r = g(k);",
        "np.array([3, 1, 2, 6, 12])",
    ),
    "its value indexed": (
        "vector f(vector x1) { return 2 * x1; }",
        "real r = f(v)[2] + f(w)[3];",
        "2 * v[1] + 2 * w[2]",
    ),
    "changes a copy of its argument": (
        "real f(vector x1) { vector[3] q_ = x1; q_[1] = 9; return sum(q_); }",
        "real r = f(v) + 10 * v[1];",
        "9 + v[1] + v[2] + 10 * v[0]",
    ),
    "changes its own copy of integers": (
        "int f(array[] int x1) { array[3] int q_ = x1; q_[2] += 5; return q_[2] * x1[2]; }",
        "int r = f(k) + 100 * k[2];",
        "106",
    ),
    "changes a copy of rows of integers": (
        "int f(array[,] int x1) { array[3, 2] int q_ = x1; q_[1] = {7, 8}; return q_[1, 1] * q_[1, 2] + x1[1, 1]; }",
        "int r = f(d) + 100 * d[1, 2];",
        "257",
    ),
    "of data alone": (
        "real f(data real x1, data vector x2, real x3) { return x1 * x2[1] * x3; }",
        "real r = f(2.5, [3, 4]', a);",
        "7.5 * a",
    ),
    "of data arrays": (
        "real f(data array[,] int x1, data array[] real x2, vector x3) { return x1[2, 1] * x2[1] + x3[2]; }",
        "real r = f(d, {0.5}, v);",
        "1.5 + v[1]",
    ),
    "of a matrix": (
        "real f(matrix x1) { return x1[2, 1] * rows(x1) + cols(x1); }",
        "real r = f(m);",
        "3 * m[1, 0] + 2",
    ),
    "of a range": ("real f(vector x1) { return x1[1] * size(x1); }", "real r = f(v[2:3]);", "2 * v[1]"),
    "of a row of a matrix": (
        "real f(row_vector x1) { return x1[1] * size(x1); }",
        "real r = f(m[2]) + f(m[3, ]);",
        "2 * (m[1, 0] + m[2, 0])",
    ),
    "of a column of a matrix": (
        "real f(vector x1) { return x1[1] * size(x1); }",
        "real r = f(m[, 2]);",
        "3 * m[0, 1]",
    ),
    "of rows of a matrix": (
        "real f(matrix x1) { return x1[1, 1] * rows(x1); }",
        "real r = f(m[2:3]);",
        "2 * m[1, 0]",
    ),
    "of a row of integers": (
        "int f(array[] int x1) { return 10 * x1[1] + size(x1); }",
        "int r = f(d[3]) + 100 * f(e[1]);",
        "52 + 100 * 63",
    ),
    "of a column of integers": (
        "int f(array[] int x1) { return 10 * x1[1] + size(x1); }",
        "int r = f(d[, 2]);",
        "23",
    ),
    "of a literal": (
        "real f(array[] real x1) { return x1[1] - x1[2]; }",
        "real r = f({a, b}) + f({1, 2});",
        "a - b - 1",
    ),
    "of an array of vectors": (
        "real f(array[] vector x1) { return x1[2, 1] * size(x1) + size(x1[1]); }",
        "real r = f(av);",
        "2 * av[1, 0] + 3",
    ),
    "of an array of matrices": (
        "real f(array[] matrix x1) { return x1[2, 1, 2] * size(x1); }",
        "real r = f(am);",
        "2 * am[1, 0, 1]",
    ),
    "of three dimensions": (
        "real f(array[,,] real x1) { return x1[2, 1, 2] * size(x1[1]); }",
        "real r = f(rc);",
        "2 * rc[1, 0, 1]",
    ),
    "of integers of three dimensions": (
        "int f(array[,,] int x1) { return x1[2, 1, 2] * size(x1[1]); }",
        "int r = f(c);",
        "12",
    ),
    "of an empty array": ("int f(array[] int x1) { return size(x1); }", "int r = f(none) + 2;", "2"),
    "loops over its argument": (
        "real f(array[] vector x1) { real q_ = 0; for (x2 in x1) q_ += x2[1] * x2[2]; return q_; }",
        "real r = f(av);",
        "(av[:, 0] * av[:, 1]).sum()",
    ),
    "loops over rows of integers": (
        "int f(array[,] int x1) { int q_ = 0; for (x2 in x1) q_ = 10 * q_ + x2[2]; return q_; }",
        "int r = f(d);",
        "246",
    ),
    "called in a loop": (
        "real f(real x1, int x2) { return x1 * x2; }",
        "real r = 0; for (x1 in 1:3) r += f(v[x1], k[x1]);",
        "v @ k",
    ),
    "called in an index": (
        "int f(int x1) { return x1 % 3 + 1; }",
        "real r = v[f(i)] + 10 * v[f(f(i))];",
        "v[2] + 10 * v[0]",
    ),
    "called in a size": (
        "int f(int x1) { return x1 + 1; }",
        "vector[f(i)] r = rep_vector(a, f(i));",
        "np.full(3, a)",
    ),
    "called in a condition": ("int f(real x1) { return x1 > 1; }", "real r = f(a) ? 1 : f(b) ? 2 : 3;", "2"),
    "without a value": ('void f(real x1) { if (x1 > 100) reject("large"); }', "f(a); real r = a;", "a"),
    "a density of one's own": (
        "real f_lpdf(real x1, real x2) { return -square(x1 - x2); }",
        "real r = f_lpdf(a | b);",
        "-((a - b) ** 2)",
    ),
    "an unnormalized density of one's own": (
        "real f_lpdf(vector x1, real x2) { return normal_lpdf(x1 | x2, 1) + log(2); }",
        "real r = f_lpdf(v | b);",
        "stats.norm.logpdf(v, b).sum() + np.log(2)",
    ),
    "a mass of one's own": (
        "real f_lpmf(int x1, real x2) { return x1 * log(x2) - x2; }",
        "real r = f_lpmf(n | b);",
        "3 * np.log(b) - b",
    ),
    "a mass of one's own of an array": (
        "real f_lpmf(array[] int x1, vector x2) { return poisson_lpmf(x1 | x2) + size(x1); }",
        "real r = f_lpmf(k | vp);",
        "stats.poisson.logpmf(k, vp).sum() + 3",
    ),
    "a distribution function of one's own": (
        "real f_lcdf(real x1, real x2) { return -exp(-x1 / x2); }",
        "real r = f_lcdf(a | b);",
        "-np.exp(-a / b)",
    ),
    "a random walk as a density": (
        "real f_lpdf(vector x1, real x2) { int q_ = size(x1); return normal_lpdf(x1[2:q_] | x1[1:q_ - 1], x2); }",
        "real r = f_lpdf(v5 | b);",
        "stats.norm.logpdf(v5[1:], v5[:-1], b).sum()",
    ),
    "reduce_sum over reals": (
        "real f(array[] real x1, int x2, int x3, real x4) { return normal_lpdf(x1 | x4, 1) + x2; }",
        "real r = reduce_sum(f, ra, 3, b);",
        "stats.norm.logpdf(ra, b).sum() + 1",
    ),
    "reduce_sum over integers": (
        "real f(array[] int x1, int x2, int x3, vector x4) { return poisson_lpmf(x1 | x4[x2:x3]); }",
        "real r = reduce_sum(f, k, 1, vp);",
        "stats.poisson.logpmf(k, vp).sum()",
    ),
    "reduce_sum over vectors": (
        "real f(array[] vector x1, int x2, int x3, vector x4, matrix x5) { real q_ = 0; for (x6 in 1:size(x1)) q_ += x1[x6]' * x5 * x4; return q_; }",
        "real r = reduce_sum(f, av, 1, v, A);",
        "(av @ A @ v).sum()",
    ),
    "reduce_sum over rows of integers": (
        "real f(array[,] int x1, int x2, int x3, real x4) { real q_ = 0; for (x5 in 1:size(x1)) q_ += poisson_lpmf(x1[x5] | x4) * (x2 + x5 - 1); return q_; }",
        "real r = reduce_sum(f, d, 3, b);",
        "(stats.poisson.logpmf(d, b).sum(1) * [1, 2, 3]).sum()",
    ),
    "reduce_sum over rows of reals": (
        "real f(array[,] real x1, int x2, int x3, real x4) { real q_ = 0; for (x5 in 1:size(x1)) q_ += sum(x1[x5]) * x4; return q_; }",
        "real r = reduce_sum(f, rb, 2, b);",
        "rb.sum() * b",
    ),
    "reduce_sum with several shared arguments": (
        "real f(array[] int x1, int x2, int x3, vector x4, array[] int x5, real x6, array[] vector x7) { return sum(x4[x5[x2:x3]]) * x6 + x7[1, x2]; }",
        "real r = reduce_sum(f, k, 3, v, k, b, av);",
        "v.sum() * b + av[0, 0]",
    ),
    "reduce_sum_static": (
        "real f(array[] real x1, int x2, int x3, real x4) { return normal_lpdf(x1 | x4, 1); }",
        "real r = reduce_sum_static(f, ra, 1, b);",
        "stats.norm.logpdf(ra, b).sum()",
    ),
    "reduce_sum over positions": (
        "real f(array[] int x1, int x2, int x3, vector x4, vector x5) { return normal_lpdf(x4[x1] | x5[x1], 1); }",
        "real r = reduce_sum(f, linspaced_int_array(3, 1, 3), 1, v, w);",
        "stats.norm.logpdf(v, w).sum()",
    ),
    "map_rect": (
        "vector f(vector x1, vector x2, data array[] real x3, data array[] int x4) { return [sum(x1) * x2[1] + x3[1] * x4[1]]'; }",
        "vector[2] r = map_rect(f, v, {[a]', [b]'}, {{0.5}, {1.5}}, {{2}, {3}});",
        "np.array([v.sum() * a + 1, v.sum() * b + 4.5])",
    ),
}
# what only a model says, of parameters: its target is the result
TABLES = {"read": READS, "write": WRITES, "loop": LOOPS, "branch": BRANCHES, "scope": SCOPES}


def cases() -> Iterator[Case]:
    for word, table in TABLES.items():
        for name, (code, truth) in table.items():
            yield Case(f"{word}: {name}", code, truth)
    for number, (name, (functions, code, truth)) in enumerate(FUNCTIONS.items()):
        # each has names of its own: one program holds several
        renamed = [
            re.sub(r"\b([fg])(?=[(,]|_lp|_lcdf)", rf"\g<1>{number}", text) for text in (functions, code)
        ]
        yield Case(f"function: {name}", renamed[1], truth, functions=renamed[0])
