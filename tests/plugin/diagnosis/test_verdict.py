"""A diagnosis as a record: what it says first, and as data."""

import json

import numpy as np
import pytest

from avistan.diagnosis.checks import diagnose
from avistan.diagnosis.verdict import Check, Diagnosis, Trust, Variable
from avistan.runtime.errors import FitError


def test_a_diagnosis_is_plain_data(linear):
    diagnosis = diagnose(linear)
    out = json.loads(json.dumps(diagnosis.to_json(), allow_nan=False))
    assert out["passed"] is True
    assert out["outcome"] == diagnosis.outcome.name
    assert [variable["name"] for variable in out["variables"]] == ["theta"]
    keys = {"name", "passed", "value", "threshold", "unit", "finding", "advice"}
    assert all(set(check) == keys for check in out["checks"])
    dataset = diagnosis.to_dataset()
    assert dataset["conditional_error"].dims == ("N",)
    assert dataset.sizes["N"] == 300
    text = str(diagnosis)
    assert "hold: theta" in text
    assert all(check.finding.split()[0] in text for check in diagnosis.checks)


def test_the_first_trouble_names_the_outcome_and_advice_is_never_empty():
    def check(trouble):
        return Check(name=trouble.name, passed=False, finding="", trouble=trouble)

    both = tuple(check(trouble) for trouble in (Trust.units_misfit, Trust.stopped_early))
    diagnosis = Diagnosis(program="p", method="m", checks=both, units={}, level=None, seconds=0.0)
    assert diagnosis.outcome is Trust.stopped_early
    assert all(bool(trouble.value) is (trouble is not Trust.passed) for trouble in Trust)
    assert diagnosis.to_dataset().sizes == {}


def test_variables_that_must_hold_are_asked_for_by_name():
    variables = (Variable(name="mu", holds=True, error=0.01), Variable(name="L", holds=False, error=np.inf))
    check = Check(
        name="globals", passed=False, finding="Not to be relied on: L.", trouble=Trust.globals_misfit
    )
    given = {
        "program": "p",
        "method": "m",
        "units": {},
        "level": None,
        "seconds": 0.0,
        "variables": variables,
    }
    diagnosis = Diagnosis(checks=(check,), **given)
    assert not diagnosis.passed
    assert diagnosis.holds(["mu"])
    assert not diagnosis.holds(["mu", "L"])
    with pytest.raises(FitError, match=r"no global is named 'nu'\. There are mu, L"):
        diagnosis.holds(["nu"])
    other = Check(name="other starts", passed=False, finding="", trouble=Trust.several_modes)
    assert not Diagnosis(checks=(check, other), **given).holds(["mu"])
    again = Diagnosis.from_json(json.loads(json.dumps(diagnosis.to_json())), {})
    assert again.variables == variables
    assert "hold: mu" in str(again)
    assert "do not hold: L" in str(again)
