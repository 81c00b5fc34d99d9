"""Inference functions f: unit input -> variational parameters of q(z_n). One call gives all N units.

F-VI, the constant factor and A-VI are the same family with another source of nu: a table, a constant, a function.
Source: Margossian & Blei, "Amortized Variational Inference: When and Why?", UAI 2024, sections 2 and 4.
"""

from __future__ import annotations

import abc
import math
from itertools import combinations_with_replacement
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

_LOG_SD_RANGE = 10.0


class LocalNu(NamedTuple):
    """Variational parameters of N units with d latents each, standardized; each latent's lie together.

    `loc` and `log_sd` are means and log sds of the Cholesky diagonal, `below` its d (d - 1) / 2 entries below.
    """

    loc: Float[Array, "d N"]
    log_sd: Float[Array, "d N"]
    below: Float[Array, "B N"]


class AbstractInferenceFunction(eqx.Module):
    """Maps the inputs of all units to their variational parameters, on the standardized local scale.

    Every function starts where all units have the parameters it was made with, so that methods begin at one place.
    """

    @abc.abstractmethod
    def __call__(self, inputs: Float[Array, "N R"]) -> LocalNu:
        """Variational parameters, float64, of inputs (N, R)."""


class Table(AbstractInferenceFunction):
    """A free row for every unit: factorized VI (F-VI). Ignores the inputs."""

    nu: LocalNu

    def __call__(self, inputs: Float[Array, "N R"]) -> LocalNu:
        return self.nu


class Constant(AbstractInferenceFunction):
    """One row for all units: the paper's constant factor. Ignores the inputs but for their number."""

    nu: LocalNu  # of one unit

    def __call__(self, inputs: Float[Array, "N R"]) -> LocalNu:
        return LocalNu(*(jnp.broadcast_to(part, (part.shape[0], inputs.shape[0])) for part in self.nu))


class Polynomial(AbstractInferenceFunction):
    """All monomials of the inputs up to a degree, linear in its coefficients (T, P)."""

    coefficients: Float[Array, "T P"]  # of the scaled monomials
    exponents: tuple[tuple[int, ...], ...] = eqx.field(static=True)  # input numbers of each monomial
    block: int = eqx.field(static=True)

    def __call__(self, inputs: Float[Array, "N R"]) -> LocalNu:
        x = inputs.astype(jnp.float64)
        scale = 1 / math.sqrt(
            max(1, len(self.exponents))
        )  # one step moves the sum of all terms, not each alone
        columns = [jnp.ones(x.shape[0])]
        columns += [scale * jnp.prod(x[:, jnp.asarray(term)], axis=1) for term in self.exponents]
        return _split(self.coefficients.T @ jnp.stack(columns), self.block)


class MLP(AbstractInferenceFunction):
    """Two hidden layers of one width and, beside them, a linear map of the input.

    float32 inside. The linear part alone solves linear programs; the last layer of the network starts at zero.
    """

    layers: tuple[tuple[Float[Array, "_ _"], Float[Array, " _"]], ...]
    linear: Float[Array, "R P"] | None
    start: Float[Array, " P"]
    block: int = eqx.field(static=True)

    def __call__(self, inputs: Float[Array, "N R"]) -> LocalNu:
        x = inputs.astype(jnp.float32)
        hidden = x
        for weights, bias in self.layers[:-1]:
            hidden = jax.nn.silu(hidden @ weights + bias[None])
        weights, bias = self.layers[-1]
        out = hidden @ weights + bias[None]
        if self.linear is not None:
            out = out + x @ self.linear
        return _split(out.T.astype(jnp.float64) + self.start[:, None], self.block)


def make_polynomial(num_inputs: int, degree: int, start: LocalNu) -> Polynomial:
    """A polynomial of all inputs that starts at the parameters of one unit."""
    constant = jnp.concatenate(start)[:, 0]
    terms = [t for k in range(1, degree + 1) for t in combinations_with_replacement(range(num_inputs), k)]
    coefficients = jnp.zeros((len(terms) + 1, constant.shape[0])).at[0].set(constant)
    return Polynomial(coefficients, tuple(terms), start.loc.shape[0])


def make_mlp(
    key: PRNGKeyArray, num_inputs: int, width: int, start: LocalNu, *, depth: int = 2, skip: bool = True
) -> MLP:
    """An MLP with `depth` hidden layers that starts at the parameters of one unit; `skip` adds the linear map."""
    constant = jnp.concatenate(start)[:, 0]
    sizes = [num_inputs, *[width] * depth, constant.shape[0]]
    keys = jax.random.split(key, depth + 1)
    layers = []
    for number, (k, fan_in, fan_out) in enumerate(zip(keys, sizes[:-1], sizes[1:], strict=True)):
        scale = 0.0 if number == depth else math.sqrt(2.0 / max(fan_in, 1))
        weights = scale * jax.random.normal(k, (fan_in, fan_out), dtype=jnp.float32)
        layers.append((weights, jnp.zeros(fan_out, dtype=jnp.float32)))
    linear = jnp.zeros((num_inputs, constant.shape[0]), dtype=jnp.float32) if skip else None
    return MLP(tuple(layers), linear, constant, start.loc.shape[0])


def _split(nu: Float[Array, "P N"], block: int) -> LocalNu:
    """Outputs of a function; log sds flatten beyond +-10, so that an outlying input can't overflow its unit's sd."""
    log_sd = _LOG_SD_RANGE * jnp.tanh(nu[block : 2 * block] / _LOG_SD_RANGE)
    return LocalNu(nu[:block], log_sd, nu[2 * block :])
