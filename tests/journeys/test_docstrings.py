"""Every public name has an example, and all examples run on one small model."""

import doctest
import inspect
import io

import numpy as np
import pytest

import avistan

# Examples share variables; these make some that others use.
FIRST = ["calibrate", "Model", "Model.fit", "Model.compare", "Reference", "WarmStart"]


def public() -> dict[str, object]:
    """Public names of the package, and the methods of its classes."""
    found: dict[str, object] = {}
    for name in avistan.__all__:
        found[name] = value = getattr(avistan, name)
        if inspect.isclass(value):
            ours = [base for base in value.__mro__ if base.__module__.startswith("avistan.")]
            own = {n: m for base in reversed(ours) for n, m in vars(base).items() if not n.startswith("_")}
            found |= {f"{name}.{n}": m for n, m in own.items() if inspect.isroutine(m)}
    return found


NAMES = public()


def test_every_public_name_has_an_example():
    parser = doctest.DocTestParser()
    assert [
        name for name, value in NAMES.items() if not parser.get_examples(inspect.getdoc(value) or "")
    ] == []


@pytest.mark.filterwarnings("ignore:.*of the draws.*:UserWarning")
def test_examples_print_what_they_say(tmp_path):
    """One model, fitted for 20 steps: results are rough, and the examples ask for no more than their shapes."""
    root = avistan.models_root() / "eight_schools"
    model = avistan.Model(stan_file=root / "eight_schools.stan", data=root / "data.json")
    shared = {"avi": avistan, "np": np, "folder": tmp_path, "model": model}
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    failures = {}
    for name in [*FIRST, *(name for name in NAMES if name not in FIRST)]:
        example = doctest.DocTestParser().get_doctest(inspect.getdoc(NAMES[name]), shared, name, None, None)
        example.globs = shared
        said = io.StringIO()
        if runner.run(example, out=said.write, clear_globs=False).failed:
            failures[name] = said.getvalue()
    assert not failures, "\n".join(failures.values())
