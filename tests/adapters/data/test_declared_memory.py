"""Variables that the memory does not hold are refused before an engine is asked for them."""

import re

import pytest

from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data import declared_memory
from stan_adapters.data.declared_memory import check_declared_memory
from stan_adapters.data.stan_data import read_data
from stan_adapters.engine.refusals import refusal
from stan_adapters.errors import EngineError, UnsupportedError
from stan_adapters.language.program import Program

# No machine has the exbibytes of 10^9 by 10^9.
TOO_LARGE = {
    "a parameter": (
        "parameters { matrix[1000000000, 1000000000] x; } model { }",
        {},
        "`matrix[1000000000, 1000000000] x` at mine.stan:1:45 has 1000000000000000000 entries, which take 35 EiB",
    ),
    "transformed data": (
        "data { int N; } transformed data { matrix[N, N] a; } parameters { real x; } model { x ~ normal(0, 1); }",
        {"N": 10**9},
        "`matrix[N, N] a` at mine.stan:1:49 has 1000000000000000000 entries, which take 6.9 EiB",
    ),
    "a transformed parameter": (
        "data { int N; } parameters { real x; } transformed parameters { array[N, N] vector[3] b; } model { }",
        {"N": 10**9},
        "has 3000000000000000000 entries, which take 42 EiB",
    ),
}


def mine(code, data):
    program = Program.from_code(code, name="mine")
    return program, read_data(program, data)


@pytest.mark.parametrize("case", TOO_LARGE)
def test_what_no_memory_holds_is_refused_with_its_declaration(case, monkeypatch):
    code, data, words = TOO_LARGE[case]
    monkeypatch.setattr(
        "stan_adapters.bound.bound_model.construct", lambda *given, **more: pytest.fail("it was asked for")
    )
    with pytest.raises(EngineError, match=re.escape(words)) as caught:
        BoundModel(*mine(code, data))
    assert not isinstance(caught.value, UnsupportedError)  # no other engine would do better
    assert "of memory are left" in str(caught.value)
    assert ("(N = 1000000000)" in str(caught.value)) == bool(data)


def test_what_the_memory_holds_is_bound_and_what_is_left_decides(monkeypatch):
    program, data = mine(
        "data { int N; } parameters { vector[N] x; } model { x ~ normal(0, 1); }", {"N": 10**5}
    )
    monkeypatch.setattr(declared_memory, "available_memory", lambda: 5 * 8 * 10**5)
    check_declared_memory(program, data)
    monkeypatch.setattr(declared_memory, "available_memory", lambda: 5 * 8 * 10**5 - 1)
    with pytest.raises(EngineError, match=r"3\.8 MiB at least"):
        check_declared_memory(program, data)


def test_sizes_that_the_data_do_not_tell_and_generated_quantities_count_as_nothing():
    code = (
        "functions { int many() { return 2; } } parameters { vector[many()] x; } model { x ~ normal(0, 1); } "
        "generated quantities { matrix[1000000000, 1000000000] big; }"
    )
    check_declared_memory(*mine(code, {}))


def test_an_engine_that_runs_out_of_memory_says_so_and_names_no_compiler():
    program, data = mine("data { int N; } parameters { vector[N] x; } model { x ~ normal(0, 1); }", {"N": 7})
    error = refusal("std::bad_alloc", engine="stanli", program=program, data_json=data.to_json())
    assert not isinstance(error, UnsupportedError)
    assert "memory ran out" in str(error)
    assert "`vector[N] x` at mine.stan:1:40 has 7 entries, which take 280 bytes at least" in str(error)
    assert "compiler" not in str(error)
