"""BLAS on one thread during a fit."""

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from avistan.fitting.fitted import fit_method
from avistan.model import Model
from avistan.runtime.threads import one_blas_thread


def _threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def test_blas_has_one_thread_within_and_the_callers_number_after():
    with threadpool_limits(limits=2, user_api="blas"):
        before = _threads()
        assert one_blas_thread(_threads)() == {1}
        assert _threads() == before == {2}


def test_the_setting_comes_back_after_an_error():
    @one_blas_thread
    def fails() -> None:
        raise ValueError("no")

    with threadpool_limits(limits=2, user_api="blas"):
        with pytest.raises(ValueError, match="no"):
            fails()
        assert _threads() == {2}


def test_training_runs_so():
    seen = []
    model = Model(
        stan_code="parameters { real x; } model { x ~ normal(0, 1); }",
    )
    with threadpool_limits(limits=2, user_api="blas"):
        fit = model.fit(method="fvi", steps=2, seed=1)
        fit_method(
            next(iter(model._starts.kept.values()))[0],
            fit.method,
            fit.options,
            progress=lambda *_: seen.append(_threads()),
        )
    assert seen
    assert all(threads == {1} for threads in seen)
