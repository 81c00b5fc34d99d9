"""Sizes that a switch of the data decides are read as the branch that it chooses."""

import pytest

from stan_adapters.language.program import Program
from stan_adapters.language.switches import settled


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("has ? N : 0", "N"),
        ("(has == 2) ? N : 0", "0"),
        ("has && !other ? N : K", "N"),
        ("other ? 1 : has ? N : K", "N"),
        ("which[2] == 1 ? N : 0", "N"),
        ("N > 2 ? N : 0", "N > 2 ? N : 0"),  # N counts something
        ("unknown(has) ? N : 0", "unknown(has) ? N : 0"),
        ("N - 1", "N - 1"),
    ],
)
def test_a_switch_chooses_the_size(size, expected):
    program = Program.from_code(
        f"data {{ int N; int K; int has; int other; array[2] int which; vector[{size}] w; }} "
        f"parameters {{ array[{size}] vector[K] b; }} model {{ }}"
    )
    found = settled(program, {"N": 3, "K": 2, "has": 1, "other": 0, "which": [0, 1]})
    assert str(found.declaration("w").type) == f"vector[{expected}]"
    assert str(found.declaration("b").type) == f"array[{expected}] vector[K]"
    assert found.source == program.source
