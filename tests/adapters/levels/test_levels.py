"""Candidate levels: parameters that share a declared size, and where their blocks lie."""

import numpy as np
import pytest

from stan_adapters.data.layout import Layout, build_layout
from stan_adapters.errors import StructureError
from stan_adapters.language.program import Program
from stan_adapters.levels.levels import Level, Member, candidate_levels, make_level, shared_levels
from stan_adapters.structure.structure import find_level

SIZES = {"J": 4, "K": 3, "P": 4, "one": 1, "none": 0}


def layout_of(parameters: str) -> Layout:
    code = f"data {{ int J; int K; int P; int one; int none; }} parameters {{ {parameters} }}"
    program = Program.from_code(code)
    sizes = [np.prod(d.type.shape(SIZES), dtype=int) for d in program.parameters]
    minus = sum(
        np.prod(d.type.shape(SIZES)[:-1], dtype=int)
        for d in program.parameters
        if d.type.base in ("simplex", "sum_to_zero_vector")
    )
    return build_layout(program.parameters, SIZES, {}, int(sum(sizes) - minus))


def described(levels: tuple[Level, ...]) -> list[tuple[str, tuple[str, ...], tuple[int, ...]]]:
    return [(level.name, level.latents, level.index.shape) for level in levels]


TABLE = {
    "scalars propose nothing": ("real a; real<lower=0> b;", []),
    "a vector": ("vector[J] a;", [("J", ("a",), (4, 1))]),
    "two containers of one size": (
        "vector[J] a; array[J] vector[K] b;",
        [("J", ("a", "b"), (4, 4)), ("K", ("b",), (3, 4))],
    ),
    "both axes of a matrix": ("matrix[J, K] a;", [("J", ("a",), (4, 3)), ("K", ("a",), (3, 4))]),
    "one number under two symbols": (
        "vector[J] a; vector[P] b;",
        [("J", ("a",), (4, 1)), ("P", ("b",), (4, 1))],
    ),
    "expressions are symbols too": (
        "vector[J - 1] a; array[J * K] real b;",
        [("J * K", ("b",), (12, 1)), ("J - 1", ("a",), (3, 1))],
    ),
    "constrained elements are blocks": ("array[J] simplex[K] a;", [("J", ("a",), (4, 2))]),
    "a single simplex is none": ("simplex[K] a;", []),
    "one unit and no unit are no level": ("vector[one] a; vector[none] b;", []),
    "a square container joins through its first axis": ("matrix[J, J] a;", [("J", ("a",), (4, 4))]),
}


@pytest.mark.parametrize(("parameters", "expected"), TABLE.values(), ids=TABLE.keys())
def test_the_candidates_are_the_sizes_that_parameters_share(parameters, expected):
    assert described(candidate_levels(layout_of(parameters))) == expected


def test_a_block_gathers_the_entries_of_one_unit_from_every_container():
    layout = layout_of("real mu; vector[J] a; matrix[K, J] b;")
    level = candidate_levels(layout)[0]
    assert level.index.tolist() == [[1 + j, *range(5 + 3 * j, 8 + 3 * j)] for j in range(4)]
    assert level.block == 4
    assert level.num_units == 4
    assert level.globals_index(layout.dim).tolist() == [0]


def test_columns_belong_to_members_and_a_level_can_be_cut_down_to_some_of_them():
    layout = layout_of("vector[J] a; array[J] vector[K] b;")
    level = candidate_levels(layout)[0]
    assert level.member_columns(layout) == {"a": slice(0, 1), "b": slice(1, 4)}
    reduced = level.only(layout, ["b"])
    np.testing.assert_array_equal(reduced.index, level.index[:, 1:])
    assert reduced.globals_index(layout.dim).tolist() == [0, 1, 2, 3]


def test_a_level_can_be_made_from_named_members():
    layout = layout_of("matrix[J, K] a;")
    level = make_level(layout, "columns", [Member("a", 1)])
    assert level.index.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def test_a_sum_to_zero_vector_proposes_units_that_own_nothing():
    layout = layout_of("sum_to_zero_vector[J] a; array[K] sum_to_zero_vector[J] b; simplex[K] c;")
    assert described(shared_levels(layout)) == [("J", ("a",), (4, 0)), ("J", ("b",), (4, 0))]


def test_rows_and_columns_of_stochastic_matrices_and_components_of_tuples_are_units():
    declared = "row_stochastic_matrix[J, K] a; column_stochastic_matrix[K, J] b; tuple(real, vector[J]) c;"
    program = Program.from_code(f"data {{ int J; int K; }} parameters {{ {declared} }}")
    layout = build_layout(program.parameters, SIZES, {}, 8 + 8 + 5)
    level = candidate_levels(layout)[0]
    assert (level.name, level.latents, level.index.shape) == ("J", ("a", "b", "c.2"), (4, 5))
    assert level.index[1].tolist() == [1, 5, 10, 11, 18]


def test_blocks_of_a_flat_vector_and_listed_places_are_units():
    layout = layout_of("real m; vector[6] z;")
    beside, apart = (make_level(layout, "J", [Member("z", 0, 2, away)]) for away in (False, True))
    assert beside.index.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert apart.index.tolist() == [[1, 4], [2, 5], [3, 6]]
    listed = make_level(layout, "J", [Member("z", 0, 2, places=(0, 5, 1, 3), size=6)])
    assert listed.index.tolist() == [[1, 6], [2, 4]]
    assert listed.globals_index(layout.dim).tolist() == [0, 3, 5]
    with pytest.raises(StructureError, match="6 entries, and each unit has 4"):
        make_level(layout, "J", [Member("z", 0, 4)])
    with pytest.raises(StructureError, match="known of data with 8"):
        make_level(layout, "J", [Member("z", 0, 2, places=(0, 5), size=8)])


def test_a_level_is_found_by_its_size_or_by_a_latent():
    layout = layout_of("vector[J] alpha; vector[K] beta;")
    levels = candidate_levels(layout)
    program = Program.from_code("parameters { real x; }", name="mine")
    assert find_level(levels, "K", program).latents == ("beta",)
    assert find_level(levels, "alpha", program).name == "J"
    with pytest.raises(
        StructureError, match=r"mine has no level 'alhpa'\. Did you mean 'alpha'\? .*J \(alpha\); K \(beta\)"
    ):
        find_level(levels, "alhpa", program)
