"""Inference functions f: unit input -> variational parameters of q(z_n). One call gives all N units.

F-VI, the constant factor and A-VI are the same family with another source of nu: a table, a constant, a function.
Source: Margossian & Blei, "Amortized Variational Inference: When and Why?", UAI 2024, sections 2 and 4.
"""

from __future__ import annotations

import abc
import math
from dataclasses import replace
from itertools import combinations_with_replacement, pairwise
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jaxtyping import Array, Float, Float32, Int

from avistan.family.distillation import distil
from avistan.family.ridge import ridge
from avistan.runtime.device import on_device, zeros
from avistan.runtime.errors import MethodError
from avistan.runtime.types import FloatArray

LOG_SD_RANGE = 10.0
MAX_TERMS = 2000  # of a polynomial
_TOGETHER = 2048  # units in one pass of a network


class DistinctInputs(NamedTuple):
    """Inputs of N units of which only U are distinct: a function passes over these, and units share its outputs.

    Attributes:
        rows: the distinct inputs.
        which: of them each unit has.
    """

    rows: Float32[Array, "U R"]
    which: Int[Array, " N"]


Inputs = Float[Array, "N R"] | DistinctInputs  # of N units


class LocalNu(NamedTuple):
    """Variational parameters of N units with d latents each, standardized; each latent's lie together.

    `loc` and `log_sd` are means and log sds of the Cholesky diagonal, `below` its d (d - 1) / 2 entries below. Where
    the factor is conditional on the globals, `slope` and `growth` hold d x K rates at which mean and log scale change;
    where a flow transforms it, `warp` holds the numbers of d maps (`flow`), and of Student's t `tail` says how heavy
    its tails are (`student`).
    """

    loc: Float[Array, "d N"]
    log_sd: Float[Array, "d N"]
    below: Float[Array, "B N"]
    slope: Float[Array, "C N"]
    growth: Float[Array, "E N"]
    warp: Float[Array, "F N"]
    tail: Float[Array, "T N"]


class AbstractInferenceFunction(eqx.Module):
    """Maps the inputs of all units to their variational parameters, on the standardized local scale.

    A new function gives all units the parameters it was made with; `projected` moves it near each unit's own.
    """

    @abc.abstractmethod
    def __call__(self, inputs: Float[Array, "N R"]) -> LocalNu:
        """Variational parameters, float64, of inputs (N, R)."""

    def packed(self, inputs: Float[Array, "N R"]) -> Float32[Array, "P N"]:
        """The same in single precision, all parts in one array."""
        return jnp.concatenate(self(inputs)).astype(jnp.float32)

    def projected(self, inputs: Float[np.ndarray, "N R"], nu: LocalNu) -> AbstractInferenceFunction:
        """The function nearest to given parameters, by weighted least squares in what it is linear in."""
        return self


def parameters(function: AbstractInferenceFunction, inputs: Inputs) -> LocalNu:
    """Variational parameters of N units on the standardized scale."""
    if not isinstance(inputs, DistinctInputs):
        return function(inputs)
    nu: LocalNu = jax.tree.map(lambda part: part[:, inputs.which], function(inputs.rows))
    return nu


class Table(AbstractInferenceFunction):
    """A free row for every unit: factorized VI (F-VI). Ignores the inputs."""

    nu: LocalNu

    def __call__(self, inputs: Float[Array, "N R"]) -> LocalNu:
        return self.nu

    def moved_along(self, shift: FloatArray) -> Table:
        """The function whose means, and log sds if scales do too, are those of this one where the globals are shifted
        along the directions, (K,).
        """
        block, values = len(self.nu.loc), [np.array(part) for part in self.nu]
        for part in (0, 1):  # means by slopes, log sds by growth, of which there may be none
            rates = values[3 + part]
            if len(rates):
                values[part] += np.einsum("ikn,k->in", rates.reshape(block, len(shift), -1), shift)
        return Table(LocalNu(*map(on_device, values)))


class Constant(AbstractInferenceFunction):
    """One row for all units: the paper's constant factor. Ignores the inputs but for their number."""

    nu: LocalNu  # of one unit

    def __call__(self, inputs: Float[Array, "N R"]) -> LocalNu:
        return LocalNu(*(jnp.broadcast_to(part, (part.shape[0], inputs.shape[0])) for part in self.nu))


class Polynomial(AbstractInferenceFunction):
    """All monomials of the inputs up to a degree, linear in its coefficients (T, P)."""

    coefficients: Float[Array, "T P"]  # of the scaled monomials
    exponents: tuple[tuple[int, ...], ...] = eqx.field(static=True)  # input numbers of each monomial
    sizes: tuple[int, ...] = eqx.field(static=True)  # of the parts of nu

    def __call__(self, inputs: Float[Array, "N R"]) -> LocalNu:
        return _split(self.coefficients.T @ self._monomials(inputs), self.sizes)

    def _monomials(self, inputs: Float[Array, "N R"]) -> Float[Array, "T N"]:
        x = inputs.astype(jnp.float64)
        scale = 1 / math.sqrt(max(1, len(self.exponents)))  # one step moves the sum of all terms, not each
        columns = [jnp.ones(x.shape[0])]
        columns += [scale * jnp.prod(x[:, jnp.asarray(term)], axis=1) for term in self.exponents]
        return jnp.stack(columns)

    def projected(self, inputs: Float[np.ndarray, "N R"], nu: LocalNu) -> Polynomial:
        terms = np.asarray(self._monomials(on_device(inputs)))[1:].T
        coefficients, intercept = _regress(terms, nu)
        together = on_device(np.concatenate([intercept[None], coefficients]))
        moved: Polynomial = eqx.tree_at(lambda f: f.coefficients, self, together)
        return moved


class Refined(AbstractInferenceFunction):
    """A function with parameters of their own for some of the units that it was fitted to."""

    base: AbstractInferenceFunction
    units: Int[Array, " M"]  # numbers, counted from 0
    nu: LocalNu  # of these units

    def __call__(self, inputs: Float[Array, "N R"]) -> LocalNu:
        parts = zip(self.base(inputs), self.nu, strict=True)
        return LocalNu(*(part.at[:, self.units].set(own) for part, own in parts))


class MLP(AbstractInferenceFunction):
    """Two hidden layers of one width and, in parallel, a linear map of the input.

    float32 inside. The linear part alone solves linear programs; the last layer of the network starts at zero.
    """

    layers: tuple[tuple[Float[Array, "_ _"], Float[Array, " _"]], ...]
    linear: Float[Array, "R P"] | None
    start: Float[Array, " P"]
    sizes: tuple[int, ...] = eqx.field(static=True)  # of the parts of nu

    def __call__(self, inputs: Float[Array, "N R"]) -> LocalNu:
        return _split(self._outputs(inputs).astype(jnp.float64) + self.start[:, None], self.sizes)

    def packed(self, inputs: Float[Array, "N R"]) -> Float32[Array, "P N"]:
        nu = self._outputs(inputs) + self.start.astype(jnp.float32)[:, None]
        d = self.sizes[0]
        return jnp.concatenate([nu[:d], _bounded(nu[d : 2 * d]), nu[2 * d :]])

    def _outputs(self, inputs: Float[Array, "N R"]) -> Float32[Array, "P N"]:
        """Of many units some at a time, and again for the gradient: hidden layers stay in the processor's cache."""
        units = inputs.shape[0]
        if units <= _TOGETHER:
            return self._together(inputs)
        blocks = jnp.pad(inputs, ((0, -units % _TOGETHER), (0, 0))).reshape(-1, _TOGETHER, inputs.shape[1])
        found = jax.lax.map(jax.checkpoint(lambda some: self._together(some)), blocks)
        return jnp.moveaxis(found, 0, 1).reshape(found.shape[1], -1)[:, :units]

    def _together(self, inputs: Float[Array, "N R"]) -> Float32[Array, "P N"]:
        """Units along the last axis throughout: twice as fast on a CPU as with the units first."""
        x = inputs.astype(jnp.float32).T
        hidden = x
        for weights, bias in self.layers[:-1]:
            hidden = jax.nn.silu(weights.T @ hidden + bias[:, None])
        weights, bias = self.layers[-1]
        out = weights.T @ hidden + bias[:, None]
        return out if self.linear is None else out + self.linear.T @ x

    def features(self, inputs: npt.NDArray[Any]) -> FloatArray:
        """What the outputs are linear in, (N, F): the last hidden layer and, in parallel, the inputs."""
        x = np.asarray(inputs, dtype=np.float32)
        hidden = x
        for weights, bias in self.layers[:-1]:  # as `_outputs`, in numpy
            hidden = hidden @ np.asarray(weights) + np.asarray(bias)
            with np.errstate(over="ignore"):  # x / inf is the limit
                hidden = hidden / (1 + np.exp(-hidden))
        parts = [hidden] + ([x] if self.linear is not None else [])
        return np.concatenate(parts, axis=1).astype(np.float64)

    def changed(self, outputs: slice, coefficients: FloatArray, intercept: FloatArray) -> MLP:
        """The function with so much added to some of its raw outputs: linear in the features, (F, P) and (P,)."""
        weights, bias = (np.array(part) for part in self.layers[-1])
        width = len(weights)
        weights[:, outputs] += coefficients[:width].astype(np.float32)
        bias[outputs] += intercept.astype(np.float32)
        layers = (*self.layers[:-1], (on_device(weights), on_device(bias)))
        if self.linear is None:
            return replace(self, layers=layers)
        linear = np.array(self.linear)
        linear[:, outputs] += coefficients[width:].astype(np.float32)
        return replace(self, layers=layers, linear=on_device(linear))

    def moved_along(self, shift: FloatArray) -> MLP:
        """As `Table.moved_along`."""
        block = self.sizes[0]
        starts = np.cumsum([0, *self.sizes])

        def moved(readout: Array) -> Array:
            values = np.array(readout)
            for part in (0, 1):  # means by slopes, log sds by growth, of which there may be none
                rates = values[..., starts[3 + part] : starts[4 + part]]
                if rates.shape[-1]:
                    rates = rates.reshape(*values.shape[:-1], block, len(shift))
                    values[..., starts[part] : starts[part + 1]] += rates @ shift
            return on_device(values)

        weights, bias = self.layers[-1]
        return replace(
            self,
            layers=(*self.layers[:-1], (moved(weights), moved(bias))),
            linear=None if self.linear is None else moved(self.linear),
            start=moved(self.start),
        )

    def projected(self, inputs: Float[np.ndarray, "N R"], nu: LocalNu) -> MLP:
        x = np.asarray(inputs, dtype=np.float32)
        coefficients, intercept = _regress(self.features(x), nu)
        with np.errstate(over="ignore"):  # looked for below
            readout, bias = (
                part.astype(np.float32) for part in (coefficients, intercept - np.asarray(self.start))
            )
        if not (np.isfinite(readout).all() and np.isfinite(bias).all()):
            return (
                self  # the quick fit is so far off that single precision can't hold it: all units begin alike
            )
        width = len(readout) - (0 if self.linear is None else x.shape[1])
        layers = [tuple(np.asarray(p, dtype=np.float32) for p in layer) for layer in self.layers[:-1]]
        linear = None if self.linear is None else readout[width:]
        return self._distilled([*layers, (readout[:width], bias)], linear, x, nu)

    def _distilled(
        self,
        layers: list[Any],
        linear: npt.NDArray[np.float32] | None,
        x: npt.NDArray[np.float32],
        nu: LocalNu,
    ) -> MLP:
        """The network with these layers, brought near the units' means and log sds in all of them."""
        some = slice(2 * self.sizes[0])
        loc, log_sd = (np.asarray(part).T for part in nu[:2])
        weights, bias = layers[-1]
        start = np.asarray(self.start, dtype=np.float32)
        head = [*layers[:-1], (weights[:, some], (bias + start)[some])]
        begun = replace(
            self,
            layers=tuple((on_device(w), on_device(b)) for w, b in head),
            linear=None if linear is None else on_device(linear[:, some]),
            start=zeros(some.stop),
        )
        near = distil(
            _means_and_log_sds,
            begun,
            x,
            np.concatenate([loc, log_sd], axis=1),
            np.concatenate([0.5 * np.exp(-2 * log_sd), np.ones_like(log_sd)], axis=1),
        )
        weights[:, some], bias[some] = near.layers[-1][0], near.layers[-1][1] - start[some]
        if linear is not None and near.linear is not None:
            linear[:, some] = np.asarray(near.linear)
        moved = tuple(
            (on_device(np.asarray(w)), on_device(np.asarray(b)))
            for w, b in [*near.layers[:-1], (weights, bias)]
        )
        return replace(self, layers=moved, linear=None if linear is None else on_device(linear))


def _means_and_log_sds(network: MLP, inputs: Float32[Array, "N R"]) -> Float32[Array, "N P"]:
    """Outputs of a network of which there are no others."""
    loc, log_sd = jnp.split(network._outputs(inputs), 2)
    return jnp.concatenate([loc, _bounded(log_sd)]).T


def make_polynomial(num_inputs: int, degree: int, start: LocalNu) -> Polynomial:
    """A polynomial of all inputs that starts at the parameters of one unit.

    Raises:
        MethodError: it has too many terms.
    """
    count = math.comb(num_inputs + degree, degree)
    if count > MAX_TERMS:
        raise MethodError(
            f"a polynomial of degree {degree} in {num_inputs} inputs has {count} terms, and {MAX_TERMS} are the most: "
            "lower the degree, read fewer inputs (max_rank=, command line: --max-rank), or use the network ('avi')."
        )
    constant = _together(start)
    terms = [t for k in range(1, degree + 1) for t in combinations_with_replacement(range(num_inputs), k)]
    coefficients = np.zeros((len(terms) + 1, len(constant)))
    coefficients[0] = constant
    return Polynomial(on_device(coefficients), tuple(terms), _sizes(start))


def make_mlp(
    rng: np.random.Generator,
    num_inputs: int,
    width: int,
    start: LocalNu,
    *,
    depth: int = 2,
    skip: bool = True,
) -> MLP:
    """An MLP with `depth` hidden layers that starts at the parameters of one unit; `skip` adds the linear map."""
    constant = _together(start)
    sizes = [num_inputs, *[width] * depth]
    layers = []
    for fan_in, fan_out in pairwise(sizes):
        weights = math.sqrt(2.0 / max(fan_in, 1)) * rng.standard_normal((fan_in, fan_out))
        layers.append((on_device(weights, np.float32), zeros(fan_out, dtype=np.float32)))
    layers.append((zeros(sizes[-1], len(constant), dtype=np.float32), zeros(len(constant), dtype=np.float32)))
    linear = zeros(num_inputs, len(constant), dtype=np.float32) if skip else None
    return MLP(tuple(layers), linear, on_device(constant), _sizes(start))


def _together(nu: LocalNu) -> FloatArray:
    """Parameters of one unit in a row (P,)."""
    return np.concatenate([np.asarray(part)[:, 0] for part in nu])


def _sizes(nu: LocalNu) -> tuple[int, ...]:
    return tuple(part.shape[0] for part in nu)


def _split(nu: Float[Array, "P N"], sizes: tuple[int, ...]) -> LocalNu:
    """Outputs of a function; log sds flatten beyond +-10, so that an outlying input can't overflow its unit's sd."""
    edges = np.cumsum([0, *sizes]).tolist()
    parts = [nu[start:stop] for start, stop in pairwise(edges)]
    parts[1] = _bounded(parts[1])
    return LocalNu(*parts)


def _bounded(log_sd: Float[Array, "d N"]) -> Float[Array, "d N"]:
    return LOG_SD_RANGE * jnp.tanh(log_sd / LOG_SD_RANGE)


def _regress(features: FloatArray, nu: LocalNu) -> tuple[FloatArray, FloatArray]:
    """Coefficients (F, P) and intercepts (P,) of raw outputs on features (N, F).

    A unit's mean counts by its precision: where the posterior is narrow, the divergence grows fastest.
    """
    loc, log_sd, *rest = (np.asarray(part).T for part in nu)
    raw_log_sd = LOG_SD_RANGE * np.arctanh(np.clip(log_sd / LOG_SD_RANGE, -0.999, 0.999))
    parts = [ridge(features, loc[:, i : i + 1], np.exp(-2 * log_sd[:, i])) for i in range(loc.shape[1])]
    parts.append(ridge(features, np.concatenate([raw_log_sd, *rest], axis=1)))
    return np.concatenate([p[0] for p in parts], axis=1), np.concatenate([p[1] for p in parts])
