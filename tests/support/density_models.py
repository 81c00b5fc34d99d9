"""Models bound through stanli for the density operation, and how its tests look at them."""

import contextlib
import ctypes
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import stanli

from avistan.density import handler
from avistan.density.backend import native_available, trace_for_backend
from avistan.density.log_density import log_density

RUN_ERRORS = (jax.errors.JaxRuntimeError, ValueError)  # jax raises the second where it reuses a program

LINEAR = """
data { int N; vector[N] x; real<lower=0> tau; real<lower=0> sigma; }
parameters { real theta; vector[N] z; }
model { z ~ normal(theta, tau); x ~ normal(z, sigma); }
"""
REJECTS = """
parameters { vector[2] x; }
model { if (x[1] > 1) reject("x is ", x[1], ", above one"); x ~ normal(0, 2); }
"""
OVERFLOWS = "parameters { vector[2] x; } model { target += exp(x[1]) - square(x[2]); }"


class Model:
    """A model bound through stanli, with as many handles as asked for."""

    exclusive = None

    def __init__(self, code, data=None, *, most_handles=8):
        self._bind = lambda: stanli.bridgestan_model(
            stan_code=code, data=data or {}, capture_stan_prints=False
        )
        self._bound = [self._bind()]
        self._most = most_handles
        lib = self._bound[0].stanlib
        self.dim = self._bound[0].param_unc_num()
        self.log_density_gradient_address = ctypes.cast(lib.bs_log_density_gradient, ctypes.c_void_p).value
        self.free_error_address = ctypes.cast(lib.bs_free_error_msg, ctypes.c_void_p).value

    def handles(self, count):
        while len(self._bound) < min(count, self._most):
            self._bound.append(self._bind())
        return tuple(bound.model for bound in self._bound[:count])

    def direct(self, theta):
        """lp and gradient of one point through bridgestan's own client."""
        return self._bound[0].log_density_gradient(np.ascontiguousarray(theta), propto=True, jacobian=True)


def linear(n, seed=0):
    x = 2.0 * np.random.default_rng(seed).normal(size=n)
    return Model(LINEAR, {"N": n, "x": x, "tau": 1.155, "sigma": 2.43})


def require_native():
    if not native_available():
        assert os.environ.get("REQUIRE_ALL") != "1" or handler.disabled(), (
            "the compiled handler was not built"
        )
        pytest.skip("the compiled handler is not available")


@contextlib.contextmanager
def use_backend(name):
    """A backend, "native" or "callback", for all operations of this process within the block."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("AVISTAN_NO_NATIVE", "1" if name == "callback" else "0")
        trace_for_backend()
        yield
    trace_for_backend()


def points(key, *shape):
    return jax.random.normal(key, shape, dtype=jnp.float64)


def directly(model, theta):
    lp, grad = zip(*(model.direct(row) for row in np.asarray(theta)), strict=True)
    return np.array(lp), np.array(grad)


def rows_and_gradients(slot, theta):
    return jax.vmap(jax.value_and_grad(lambda t: log_density(slot, t)[0]))(theta)


def compiled():
    """A newly compiled operation: `jax.jit` of one function would share what another backend compiled."""
    return jax.jit(lambda slot, theta: log_density(slot, theta))


def run_isolated(code, **environment):
    """Run a program in a fresh interpreter; returns its standard output."""
    completed = subprocess.run(
        [sys.executable, "-c", code],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    return completed.stdout
