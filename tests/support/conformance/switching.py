"""Branches, loops and indexes that depend on parameters, at points where they go different ways."""

from __future__ import annotations

from collections.abc import Iterator

from .cases import Case

POINTS = (-2.5, 0.0, 2.5)  # of these signs and orders of the environment's variables change

# name: (Stan that declares r, numpy, functions block)
SWITCHING: dict[str, tuple[str, str, str]] = {
    "if": ("real r; if (v[1] > 0) r = square(a); else r = exp(b);", "a**2 if v[0] > 0 else np.exp(b)", ""),
    "if without else": ("real r = a; if (v[1] > 0) r = b;", "b if v[0] > 0 else a", ""),
    "else if": (
        "real r; if (a > 2) r = a; else if (a > 0) r = b; else r = neg;",
        "a if a > 2 else b if a > 0 else neg",
        "",
    ),
    "conditional expression": ("real r = a > 0 ? a * b : -b;", "a * b if a > 0 else -b", ""),
    "conditional expression of vectors": ("vector[3] r = a > 0 ? v : w;", "v if a > 0 else w", ""),
    "conditional expression in a loop": (
        "vector[3] r; for (x1 in 1:3) r[x1] = v[x1] > 0 ? v[x1] * a : exp(v[x1]);",
        "np.where(v > 0, v * a, np.exp(v))",
        "",
    ),
    "comparison as a number": ("real r = (a > 0) * b + (v[1] < w[1]);", "(a > 0) * b + (v[0] < w[0])", ""),
    "count of positive entries": ("int r = 0; for (x1 in 1:3) r += v[x1] > 0;", "(v > 0).sum()", ""),
    "count as a power": (
        "int x1 = 0; for (x2 in 1:3) x1 += v[x2] > 0; real r = 1.5 ^ x1;",
        "1.5 ** (v > 0).sum()",
        "",
    ),
    "index of the largest": (
        "int x1 = 1; for (x2 in 2:3) if (v[x2] > v[x1]) x1 = x2; real r = w[x1];",
        "w[np.argmax(v)]",
        "",
    ),
    "index by sorting": ("vector[3] r = w[sort_indices_asc(v)];", "w[np.argsort(v)]", ""),
    "sorted": ("vector[3] r = sort_asc(v);", "np.sort(v)", ""),
    "sorted array": ("array[3] real r = sort_desc(ra);", "-np.sort(-ra)", ""),
    "rank": ("int r = rank(v, 2);", "(v < v[1]).sum()", ""),
    "largest": ("real r = max(v) + 2 * min(ra);", "v.max() + 2 * ra.min()", ""),
    "fmax and fmin": (
        "real r = fmax(a, b) + 2 * fmin(a, neg);",
        "np.maximum(a, b) + 2 * np.minimum(a, neg)",
        "",
    ),
    "absolute value": ("real r = abs(a) + sum(abs(v));", "np.abs(a) + np.abs(v).sum()", ""),
    "step": ("real r = step(a) * b;", "(a >= 0) * b", ""),
    "break": (
        "real r = 0; for (x1 in 1:3) { if (v[x1] > 1) break; r += w[x1]; }",
        "w[: next((j for j in range(3) if v[j] > 1), 3)].sum()",
        "",
    ),
    "continue": (
        "real r = 0; for (x1 in 1:3) { if (v[x1] > 0) continue; r += w[x1]; }",
        "w[v <= 0].sum()",
        "",
    ),
    "while": (
        "real r = square(a) + 1; int x1 = 0; while (r < 20) { r *= 2; x1 += 1; } r += x1;",
        "(a**2 + 1) * 2.0 ** doublings(a**2 + 1, 20) + doublings(a**2 + 1, 20)",
        "",
    ),
    "while with a break": (
        "real r = square(a) + 1; while (1) { if (r > 20) break; r *= 2; }",
        "(a**2 + 1) * 2.0 ** doublings(a**2 + 1, 20)",
        "",
    ),
    "while with two conditions": (
        "real r = square(a) + 1; int x1 = 0; while (r < 20 && x1 < 3) { r *= 2; x1 += 1; }",
        "(a**2 + 1) * 2.0 ** min(3, doublings(a**2 + 1, 20))",
        "",
    ),
    "number of iterations": (
        "int r = 0; real x1 = square(a) + 1; while (x1 < 20) { x1 *= 2; r += 1; }",
        "doublings(a**2 + 1, 20)",
        "",
    ),
    "Newton's iterations": (
        "real x1 = square(a) + 1; real r = x1; for (x2 in 1:60) { real x3 = 0.5 * (r + x1 / r);"
        " if (abs(x3 - r) < 1e-13) break; r = x3; }",
        "np.sqrt(a**2 + 1)",
        "",
    ),
    "early return": (
        "real r = f1(a, b);",
        "-a if a < 0 else a * b",
        "real f1(real x1, real x2) { if (x1 < 0) return -x1; return x1 * x2; }",
    ),
    "returns in both branches": (
        "real r = f2(a, b);",
        "-a if a < 0 else a * b",
        "real f2(real x1, real x2) { if (x1 < 0) { return -x1; } else { return x1 * x2; } }",
    ),
    "nested returns": (
        "real r = f3(a, b);",
        "(a if b > 1 else b) if a > 0 else 2 - a",
        "real f3(real x1, real x2) { if (x1 > 0) { if (x2 > 1) return x1; return x2; } return 2 - x1; }",
    ),
    "return from a loop": (
        "real r = f4(v, w);",
        "next((w[j] for j in range(3) if v[j] > 0), 5.0)",
        "real f4(vector x1, vector x2) { for (x3 in 1:3) if (x1[x3] > 0) return x2[x3]; return 5; }",
    ),
    "function that counts": (
        "real r = w[f5(v)];",
        "w[max(1, (v > 0).sum()) - 1]",
        "int f5(vector x1) { int x2 = 0; for (x3 in 1:3) x2 += x1[x3] > 0; return max(1, x2); }",
    ),
    "recursion until a parameter is small": (
        "real r = f6(square(a) + 1);",
        "(a**2 + 1) * 0.5 ** halvings(a**2 + 1, 2)",
        "real f6(real x1); real f6(real x1) { if (x1 < 2) return x1; return f6(x1 / 2); }",
    ),
    "logical and": ("real r = 1; if (a > 0 && b > 0) r = a * b;", "a * b if a > 0 and b > 0 else 1", ""),
    "logical or": ("real r = 1; if (a < 0 || b < 0) r = a * b;", "a * b if a < 0 or b < 0 else 1", ""),
    "negation": ("real r = 1; if (!(a > 0)) r = a * b;", "a * b if not a > 0 else 1", ""),
    "branch that writes an entry": (
        "vector[3] r = v; if (a > 0) r[1] = b; else r[3] = b;",
        "switched(v, a, b)",
        "",
    ),
    "branch that writes a row": (
        "matrix[3,2] r = m; if (a > 0) r[1] = r2; else r[2] = r2;",
        "np.where(np.arange(3)[:, None] == (0 if a > 0 else 1), r2, m)",
        "",
    ),
    "branch that writes an array of vectors": (
        "array[2] vector[3] r = av; if (a > 0) r[1] = v;",
        "np.stack([v if a > 0 else av[0], av[1]])",
        "",
    ),
    "branch within a loop within a branch": (
        "real r = 0; if (b > 0) { for (x1 in 1:3) { if (v[x1] > 0) r += v[x1]; else r -= w[x1]; } } else r = a;",
        "np.where(v > 0, v, -w).sum() if b > 0 else a",
        "",
    ),
    "local declared in a branch": (
        "real r; if (a > 0) { real x1 = a * 2; r = x1 + b; } else { vector[2] x1 = [a, b]'; r = x1[1]; }",
        "2 * a + b if a > 0 else a",
        "",
    ),
    "floor": ("real r = floor(a) + a;", "np.floor(a) + a", ""),
    "integer from a comparison as a size": (
        "vector[a > 0 ? 2 : 3] x1 = rep_vector(b, a > 0 ? 2 : 3); real r = sum(x1);",
        "2 * b if a > 0 else 3 * b",
        "",
    ),
    "piecewise outcome": (
        "real r = 0; for (x1 in 1:3) r += v[x1] > a ? normal_lpdf(v[x1] | b, 1) : cauchy_lpdf(w[x1] | b, 1);",
        "np.where(v > a, stats.norm.logpdf(v, b), stats.cauchy.logpdf(w, b)).sum()",
        "",
    ),
    "a value known before a branch: running max": (
        "real r = -5; for (x1 in 1:3) if (v[x1] > r) r = v[x1];",
        "max(-5, v.max())",
        "",
    ),
    "a value known before a branch: running max from entry": (
        "real r = v[1]; for (x1 in 2:3) if (v[x1] > r) r = v[x1];",
        "v.max()",
        "",
    ),
    "a value known before a branch: flag real": (
        "real x1 = 0; if (a > 0) x1 = 1; real r = b; if (x1 > 0.5) r = neg;",
        "neg if a>0 else b",
        "",
    ),
    "a value known before a branch: flag int": (
        "int x1 = 0; if (a > 0) x1 = 1; real r = b; if (x1) r = neg;",
        "neg if a>0 else b",
        "",
    ),
    "a value known before a branch: flag int array": (
        "array[2] int x1 = {0,0}; if (a > 0) x1[2] = 1; real r = b; if (x1[2] == 1) r = neg;",
        "neg if a>0 else b",
        "",
    ),
    "a value known before a branch: flag vector": (
        "vector[2] x1 = [0,0]'; if (a > 0) x1[2] = 1; real r = b; if (x1[2] > 0.5) r = neg;",
        "neg if a>0 else b",
        "",
    ),
    "a value known before a branch: flag ternary": (
        "real x1 = 0; if (a > 0) x1 = 1; real r = x1 > 0.5 ? neg : b;",
        "neg if a>0 else b",
        "",
    ),
    "a value known before a branch: flag used": (
        "real x1 = 0; if (a > 0) x1 = 1; real r = x1 * b;",
        "b if a>0 else 0",
        "",
    ),
    "a value known before a branch: int index": (
        "int x1 = 1; if (a > 0) x1 = 3; real r = v[x1];",
        "v[2] if a>0 else v[0]",
        "",
    ),
    "a value known before a branch: int loop end": (
        "int x1 = 1; if (a > 0) x1 = 3; real r = 0; for (x2 in 1:x1) r += v[x2];",
        "v.sum() if a>0 else v[0]",
        "",
    ),
    "a value known before a branch: int count cond": (
        "int x1 = 0; for (x2 in 1:3) if (v[x2] > 0) x1 += 1; real r = a; if (x1 >= 2) r = b;",
        "b if (v>0).sum()>=2 else a",
        "",
    ),
    "a value known before a branch: int size": (
        "int x1 = 0; for (x2 in 1:3) if (v[x2] > 0) x1 += 1; real r = b ^ x1;",
        "b**(v>0).sum()",
        "",
    ),
    "a value known before a branch: real compare": (
        "real x1 = 0; for (x2 in 1:3) { if (v[x2] > 0) x1 += v[x2]; } real r = a; if (x1 > 2) r = b;",
        "b if v[v>0].sum()>2 else a",
        "",
    ),
    "a value known before a branch: while after branch": (
        "real x1 = 1; if (a > 0) x1 = 5; int r = 0; while (x1 < 20) { x1 *= 2; r += 1; }",
        "doublings(5 if a>0 else 1,20)",
        "",
    ),
    "a value known before a branch: else": (
        "real x1 = 2; if (a > 0) x1 = -2; else x1 = 3; real r = x1 > 0 ? a : b;",
        "b if a>0 else a",
        "",
    ),
    "a value known before a branch: matrix entry": (
        "matrix[2,2] x1 = rep_matrix(0,2,2); if (a > 0) x1[1,2] = 1; real r = x1[1,2] > 0.5 ? neg : b;",
        "neg if a>0 else b",
        "",
    ),
    "a value known before a branch: func flag": (
        "real r = f7(a,b,neg);",
        "neg if a>0 else b",
        "real f7(real y1, real y2, real y3) { real x1 = 0; if (y1 > 0) x1 = 1; if (x1 > 0.5) return y3; return y2; }",
    ),
    "a value known before a branch: func running min": (
        "real r = f8(v);",
        "min(5, v.min())",
        "real f8(vector y1) { real x1 = 5; for (x2 in 1:3) { if (y1[x2] < x1) x1 = y1[x2]; } return x1; }",
    ),
    "a value known before a branch: done flag loop": (
        "real r = 0; int x1 = 0; for (x2 in 1:3) { if (x1 == 0) { r += w[x2]; if (v[x2] > 1) x1 = 1; } }",
        "w[:next((j for j in range(3) if v[j] > 1), 2)+1].sum()",
        "",
    ),
    "a value known before a branch: done flag real loop": (
        "real r = 0; real x1 = 0; for (x2 in 1:3) { if (x1 == 0) { r += w[x2]; if (v[x2] > 1) x1 = 1; } }",
        "w[:next((j for j in range(3) if v[j] > 1), 2)+1].sum()",
        "",
    ),
    "a value known before a branch: swap in branch": (
        "real x1 = 1; real x2 = 2; if (a > 0) { x1 = 2; x2 = 1; } real r = x1 > x2 ? a : b;",
        "a if a>0 else b",
        "",
    ),
    "a value known before a branch: fmax": (
        "real x1 = 0; if (a > 0) x1 = 1; real r = fmax(x1, 0.5);",
        "1 if a>0 else .5",
        "",
    ),
    "a value known before a branch: int arr count": (
        "array[3] int x1 = {0,0,0}; for (x2 in 1:3) x1[v[x2] > 0 ? 1 : 3] += 1; real r = 10.0 * x1[1] + x1[3];",
        "10*(v>0).sum()+(v<=0).sum()",
        "",
    ),
    "a value known before a branch: known then computed": (
        "real x1 = 3; x1 = a; real r = x1 > 0 ? b : neg;",
        "b if a>0 else neg",
        "",
    ),
    "a value known before a branch: known then loop": (
        "real x1 = 0; for (x2 in 1:3) x1 += v[x2]; real r = x1 > 1 ? b : neg;",
        "b if v.sum()>1 else neg",
        "",
    ),
    "a value known before a branch: known entry then loop": (
        "vector[3] x1 = rep_vector(0,3); for (x2 in 1:3) x1[x2] += v[x2]; real r = x1[1] > 1 ? b : neg;",
        "b if v[0]>1 else neg",
        "",
    ),
    "a value known before a branch: cond on int mod": (
        "int x1 = 2; if (a > 0) x1 = 3; real r = x1 % 2 == 1 ? b : neg;",
        "b if a>0 else neg",
        "",
    ),
    "a value known before a branch: exact": (
        "real x1 = 3; if (a > 1) x1 = -5; real r = 0; if (x1 <= 2) r = 2;",
        "2 if a>1 else 0",
        "",
    ),
    "a value known before a branch: exact2": (
        "real r = 0; real x1 = 3; if (a > 1) x1 = -5; if (x1 <= 2) r += 2;",
        "2 if a>1 else 0",
        "",
    ),
    "a value known before a branch: lt": (
        "real r = 0; real x1 = 3; if (a > 1) x1 = -5; if (x1 < 2) r += 2;",
        "2 if a>1 else 0",
        "",
    ),
    "a value known before a branch: gt": (
        "real r = 0; real x1 = 3; if (a > 1) x1 = -5; if (x1 > 2) r += 2;",
        "0 if a>1 else 2",
        "",
    ),
    "a value known before a branch: ge": (
        "real r = 0; real x1 = 3; if (a > 1) x1 = 5; if (x1 >= 4) r += 2;",
        "2 if a>1 else 0",
        "",
    ),
    "a value known before a branch: eq": (
        "real r = 0; real x1 = 3; if (a > 1) x1 = 5; if (x1 == 5) r += 2;",
        "2 if a>1 else 0",
        "",
    ),
    "a value known before a branch: neq": (
        "real r = 0; real x1 = 3; if (a > 1) x1 = 5; if (x1 != 3) r += 2;",
        "2 if a>1 else 0",
        "",
    ),
    "a value known before a branch: tern": (
        "real x1 = 3; if (a > 1) x1 = -5; real r = x1 <= 2 ? 2 : 0;",
        "2 if a>1 else 0",
        "",
    ),
    "a value known before a branch: tern ge": (
        "real x1 = 3; if (a > 1) x1 = 5; real r = x1 >= 4 ? 2 : 0;",
        "2 if a>1 else 0",
        "",
    ),
    "a value known before a branch: num": (
        "real x1 = 3; if (a > 1) x1 = -5; real r = (x1 <= 2) * 2;",
        "2 if a>1 else 0",
        "",
    ),
    "a value known before a branch: run max ge": (
        "real r = -5; for (x1 in 1:3) if (v[x1] >= r) r = v[x1];",
        "max(-5,v.max())",
        "",
    ),
    "a value known before a branch: run min le": (
        "real r = 5; for (x1 in 1:3) if (v[x1] <= r) r = v[x1];",
        "min(5,v.min())",
        "",
    ),
    "a value known before a branch: run min le2": (
        "real r = 5; for (x1 in 1:3) if (r >= v[x1]) r = v[x1];",
        "min(5,v.min())",
        "",
    ),
}


def cases() -> Iterator[Case]:
    for name, (code, truth, functions) in SWITCHING.items():
        yield Case(name, code, truth, functions=functions, points=POINTS)
