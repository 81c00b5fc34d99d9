"""Draws as posteriordb keeps them."""

import json
import zipfile

import numpy as np
import pytest

from avistan.comparison.references import reference_from
from avistan.runtime.errors import CompetitorError
from programs import bind

PROGRAM = "parameters { matrix[2, 3] a; real b; } model { to_vector(a) ~ normal(0, 1); b ~ normal(0, 1); }"


@pytest.fixture(scope="module")
def model():
    with bind(PROGRAM, {}) as bound:
        yield bound


@pytest.fixture
def draws():
    return np.random.default_rng(1).normal(size=(2, 30, 2, 3)), np.random.default_rng(2).normal(size=(2, 30))


def chains(a, b):
    """In the order of rows, which is not Stan's."""
    return [
        {f"a[{i + 1},{j + 1}]": a[chain, :, i, j].tolist() for i in range(2) for j in range(3)}
        | {"b": b[chain].tolist(), "derived": b[chain].tolist()}
        for chain in range(2)
    ]


@pytest.mark.parametrize("kind", ["json.zip", "json", "list"])
def test_draws_come_back(model, draws, tmp_path, kind):
    content = chains(*draws)
    source = content if kind == "list" else tmp_path / f"draws.{kind}"
    if kind == "json":
        source.write_text(json.dumps(content))
    elif kind == "json.zip":
        with zipfile.ZipFile(source, "w") as archive:
            archive.writestr("draws.json", json.dumps(content))
    theta = reference_from(source, model).theta
    np.testing.assert_allclose(theta[..., :6], draws[0].transpose(0, 1, 3, 2).reshape(2, 30, 6))
    np.testing.assert_allclose(theta[..., 6], draws[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: {"N": 3, "y": [1, 2]}, r"one JSON object \(N, y\), which looks like data"),
        (lambda c: "text", "is a str; expected a list of chains"),
        (lambda c: [c[0], {"b": [1.0]}], "hold different variables"),
        (lambda c: [c[0], c[1] | {"b": [1.0]}], "different numbers of draws"),
        (lambda c: [dict.fromkeys(c[0], 1.0)], "single numbers"),
        (
            lambda c: [{k: v for k, v in chain.items() if k != "a[1,2]"} for chain in c],
            "only some columns of a",
        ),
        (
            lambda c: [{k.replace("a[", "alpha["): v for k, v in chain.items()} for chain in c],
            "no parameter 'a'",
        ),
    ],
)
def test_something_else_is_one_message(model, draws, tmp_path, change, message):
    file = tmp_path / "draws.json"
    file.write_text(json.dumps(change(chains(*draws))))
    with pytest.raises(CompetitorError, match=message):
        reference_from(file, model)
