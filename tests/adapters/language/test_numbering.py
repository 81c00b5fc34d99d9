"""What integer data number, by the text of a program."""

import pytest

from stan_adapters.language.numbering import numbered_sizes
from stan_adapters.language.program import Program

FRAME = """functions {{ real f(vector r, array[] int g, int n) {{ return r[g[n]]; }} }}
data {{ int N; int J; int M; array[N] int g; array[N] int h; array[N] int y; }}
parameters {{ vector[J] r; array[2] vector[M] z; matrix[J, M] w; real m; }}
model {{ vector[N] mu = rep_vector(0, N); {} }}"""


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("for (n in 1:N) mu[n] = r[g[n]];", {"g": "J"}),
        ("mu = r[g];", {"g": "J"}),
        ("mu = r[(g[1:N])];", {"g": "J"}),
        ("mu = z[1][h] + z[2, h];", {"g": "J", "h": "M"}),
        ("for (n in 1:N) mu[n] = w[g[n], h[n]];", {"g": "J", "h": "M"}),
        ("mu = r[g] + z[1][g];", {}),
        ("y ~ poisson_log(mu);", {"g": "J"}),
        ("for (n in 1:N) mu[n] = mu[y[n]] + r[y[n] + 1];", {"g": "J"}),
    ],
)
def test_the_size_of_what_is_indexed(code, expected):
    """The function, whose arguments are called like the program's variables, tells of g as well."""
    assert numbered_sizes(Program.from_code(FRAME.format(code))) == expected
