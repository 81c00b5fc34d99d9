"""A diagnosis as a record: what it says first, and as data."""

import json

from avistan.diagnosis.checks import diagnose
from avistan.diagnosis.verdict import Check, Diagnosis, Trust


def test_a_diagnosis_is_plain_data(linear):
    diagnosis = diagnose(linear)
    out = json.loads(json.dumps(diagnosis.to_json(), allow_nan=False))
    assert out["passed"] is False
    assert out["outcome"] == diagnosis.outcome.name
    assert out["advice"]
    keys = {"name", "passed", "value", "threshold", "unit", "finding", "advice"}
    assert all(set(check) == keys for check in out["checks"])
    dataset = diagnosis.to_dataset()
    assert dataset["khat"].dims == ("N",)
    assert dataset.sizes["N"] == 300
    text = str(diagnosis)
    assert "FAILED" in text
    assert "What to do" in text
    assert all(check.finding.split()[0] in text for check in diagnosis.checks)


def test_the_first_trouble_names_the_outcome_and_advice_is_never_empty():
    def check(trouble):
        return Check(name=trouble.name, passed=False, finding="", trouble=trouble)

    both = tuple(check(trouble) for trouble in (Trust.units_misfit, Trust.stopped_early))
    diagnosis = Diagnosis(program="p", method="m", checks=both, units={}, level=None, seconds=0.0)
    assert diagnosis.outcome is Trust.stopped_early
    assert all(bool(trouble.value) is (trouble is not Trust.passed) for trouble in Trust)
    assert diagnosis.to_dataset().sizes == {}
