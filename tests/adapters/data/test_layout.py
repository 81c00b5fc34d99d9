"""Positions of every parameter type, checked against the engine: move one coordinate and see what moves with it."""

from dataclasses import dataclass

import numpy as np
import pytest

from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.layout import Layout, build_layout
from stan_adapters.data.stan_data import read_data
from stan_adapters.errors import BindingError
from stan_adapters.language.program import Program


@dataclass(frozen=True)
class Case:
    """A parameter `x`, its constrained shape, its axes that split and the unconstrained size of a block there."""

    declaration: str
    shape: tuple[int, ...]
    axes: tuple[tuple[str, int, int], ...]  # kind, number of blocks, size of a block
    size: int


CASES = [
    Case("real x", (), (), 1),
    Case("vector[3] x", (3,), (("vector", 3, 1),), 3),
    Case("row_vector[3] x", (3,), (("vector", 3, 1),), 3),
    Case("vector<lower=0>[3] x", (3,), (("vector", 3, 1),), 3),
    Case("vector<offset=1, multiplier=2>[3] x", (3,), (("vector", 3, 1),), 3),
    Case("array[4] real x", (4,), (("array", 4, 1),), 4),
    Case("array[2, 3] real x", (2, 3), (("array", 2, 3), ("array", 3, 2)), 6),
    Case("matrix[2, 3] x", (2, 3), (("row", 2, 3), ("column", 3, 2)), 6),
    Case("array[2] vector[3] x", (2, 3), (("array", 2, 3), ("vector", 3, 2)), 6),
    Case("array[2, 4] vector[3] x", (2, 4, 3), (("array", 2, 12), ("array", 4, 6), ("vector", 3, 8)), 24),
    Case("array[4] matrix[2, 3] x", (4, 2, 3), (("array", 4, 6), ("row", 2, 12), ("column", 3, 8)), 24),
    Case("array[3] row_vector<lower=-1, upper=1>[2] x", (3, 2), (("array", 3, 2), ("vector", 2, 3)), 6),
    Case("ordered[3] x", (3,), (), 3),
    Case("array[2] ordered[3] x", (2, 3), (("array", 2, 3),), 6),
    Case("array[2] positive_ordered[3] x", (2, 3), (("array", 2, 3),), 6),
    Case("simplex[4] x", (4,), (), 3),
    Case("array[2] simplex[4] x", (2, 4), (("array", 2, 3),), 6),
    Case("array[2, 3] simplex[4] x", (2, 3, 4), (("array", 2, 9), ("array", 3, 6)), 18),
    Case("array[2] unit_vector[3] x", (2, 3), (("array", 2, 3),), 6),
    Case("array[2] sum_to_zero_vector[4] x", (2, 4), (("array", 2, 3),), 6),
    Case("array[2] sum_to_zero_matrix[3, 4] x", (2, 3, 4), (("array", 2, 6),), 12),
    Case("cholesky_factor_corr[3] x", (3, 3), (), 3),
    Case("array[2] cholesky_factor_corr[3] x", (2, 3, 3), (("array", 2, 3),), 6),
    Case("array[2] corr_matrix[3] x", (2, 3, 3), (("array", 2, 3),), 6),
    Case("array[2] cov_matrix[3] x", (2, 3, 3), (("array", 2, 6),), 12),
    Case("array[2] cholesky_factor_cov[3] x", (2, 3, 3), (("array", 2, 6),), 12),
    Case("array[2] cholesky_factor_cov[4, 2] x", (2, 4, 2), (("array", 2, 7),), 14),
    Case("vector[0] x", (0,), (("vector", 0, 0),), 0),
    Case("array[0] simplex[3] x", (0, 3), (("array", 0, 0),), 0),
    Case("matrix[0, 3] x", (0, 3), (("row", 0, 0), ("column", 3, 0)), 0),
    Case("array[2] simplex[1] x", (2, 1), (("array", 2, 0),), 0),
]
each_case = pytest.mark.parametrize("case", CASES, ids=[case.declaration for case in CASES])


def bind(case: Case) -> BoundModel:
    """`x` between two scalars, so that a wrong offset shows."""
    program = Program.from_code(f"parameters {{ real before; {case.declaration}; real after; }}")
    return BoundModel(program, read_data(program, {}))


@each_case
def test_shape_axes_and_sizes(case):
    with bind(case) as model:
        container = model.layout["x"]
        assert container.offset == 1
        assert container.size == case.size
        assert container.shape == case.shape
        found = [
            (axis.kind, axis.size, container.positions(number).shape[1])
            for number, axis in enumerate(container.axes)
        ]
        assert found == list(case.axes)
        assert model.layout["after"].offset == 1 + case.size


@each_case
def test_every_axis_covers_every_position_once(case):
    with bind(case) as model:
        container = model.layout["x"]
        for number, axis in enumerate(container.axes):
            positions = container.positions(number)
            assert positions.shape[0] == axis.size
            assert sorted(positions.ravel()) == list(range(1, 1 + case.size))


@each_case
def test_a_coordinate_moves_entries_of_its_own_block_only(case):
    with bind(case) as model:
        container = model.layout["x"]
        theta = np.random.default_rng(0).uniform(-1, 1, (1, model.dim))
        before = model.constrain(theta)[0]["x"][0]
        for number, _ in enumerate(container.axes):
            for unit, block in enumerate(container.positions(number)):
                for position in block:
                    moved = theta.copy()
                    moved[0, position] += 0.5
                    after = model.constrain(moved)[0]["x"][0]
                    changed = np.moveaxis(after != before, number, 0)
                    assert changed[unit].any()
                    assert not np.delete(changed, unit, axis=0).any()


@each_case
def test_a_container_owns_its_positions_and_labels_them_apart(case):
    with bind(case) as model:
        labels = [model.layout.label(position) for position in range(1, 1 + case.size)]
        assert len(set(labels)) == case.size
        assert all(label == "x" or label.startswith("x[") for label in labels)
        assert model.layout.label(0) == "before"
        assert model.layout.owner(1 + case.size).name == "after"


def test_a_container_with_one_free_number_goes_by_its_name():
    with bind(Case("cholesky_factor_corr[2] x", (2, 2), (), 1)) as model:
        assert model.layout.label(1) == "x"


def test_a_matrix_is_labelled_by_row_and_column():
    with bind(Case("matrix[2, 3] x", (2, 3), (), 6)) as model:
        assert [model.layout.label(position) for position in (1, 2, 3)] == ["x[1,1]", "x[2,1]", "x[1,2]"]


def test_sizes_that_only_the_engine_knows_come_from_its_names():
    code = """
    transformed data { int n = 2 + 3; }
    parameters { array[n] vector[2] x; }
    model { for (i in 1:n) x[i] ~ std_normal(); }"""
    program = Program.from_code(code)
    with BoundModel(program, read_data(program, {})) as model:
        assert [(axis.symbol, axis.size) for axis in model.layout["x"].axes] == [("n", 5), ("2", 2)]


def test_the_inner_axis_of_a_constrained_element_is_kept_apart():
    with bind(CASES[16]) as model:
        assert [(axis.kind, axis.size) for axis in model.layout["x"].whole] == [("simplex", 4)]


def layout_of(code: str, dim: int) -> Layout:
    program = Program.from_code(code)
    return build_layout(program.parameters, {}, {}, dim)


def test_declarations_that_do_not_add_up_are_refused_with_the_sizes():
    with pytest.raises(BindingError, match=r"3 unconstrained coordinates \(x: 3\), the engine reports 4"):
        layout_of("parameters { vector[3] x; }", 4)


def test_complex_and_stochastic_parameters_have_positions_too():
    layout = layout_of(
        "parameters { complex z; array[2] complex_vector[3] v; complex_matrix[2, 3] m; "
        "row_stochastic_matrix[2, 3] r; column_stochastic_matrix[4, 2] c; tuple(real, array[2] simplex[3]) t; }",
        2 + 12 + 12 + 4 + 6 + 5,
    )
    assert [container.size for container in layout.containers] == [2, 12, 12, 4, 6, 5]
    assert layout["m"].positions(1).tolist() == [[14, 15, 16, 17], [18, 19, 20, 21], [22, 23, 24, 25]]
    assert layout["v"].positions(0).shape == (2, 6)
    assert layout["r"].positions(0).tolist() == [
        [26, 28],
        [27, 29],
    ]  # free coordinates of a 2 x 2 matrix by columns
    assert layout["c"].positions(0).tolist() == [[30, 31, 32], [33, 34, 35]]  # of a 3 x 2 matrix
    assert [axis.symbol for axis in (*layout["r"].axes, *layout["c"].axes)] == ["2", "2"]
    assert layout["t.2"].positions(0).tolist() == [[37, 38], [39, 40]]
    assert (layout.label(28), layout.label(34)) == ("r[1,2]", "c[2,2]")


def test_arrays_of_stochastic_matrices_fall_along_the_array_and_along_the_simplexes():
    layout = layout_of("parameters { array[3] column_stochastic_matrix[2, 4] c; }", 12)
    assert layout["c"].positions(0).shape == (3, 4)
    assert layout["c"].positions(1)[0].tolist() == [0, 4, 8]


def test_components_of_tuples_lie_one_after_the_other():
    layout = layout_of("parameters { real a; tuple(real, tuple(vector[2], real), matrix[2, 3]) t; }", 11)
    offsets = {component.name: (component.offset, component.size) for component in layout.components}
    assert offsets == {"t.1": (1, 1), "t.2": (2, 3), "t.2.1": (2, 2), "t.2.2": (4, 1), "t.3": (5, 6)}
    assert layout["t.3"].positions(0).tolist() == [[5, 7, 9], [6, 8, 10]]


def test_an_unknown_name_or_position_is_an_error():
    layout = layout_of("parameters { vector[3] x; }", 3)
    with pytest.raises(KeyError):
        layout["y"]
    with pytest.raises(IndexError):
        layout.owner(3)
