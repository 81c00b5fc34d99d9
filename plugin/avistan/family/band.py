"""Linear recurrences along an axis of units: a Gaussian Markov factor and its path derivative.

Units that depend on those before them, x_n = u_n + sum_k B_{n,k} x_{n-k} for k = 1 .. b, are x = (I - B)^-1 u. With
u_n = L_n e_n and standard normal e the precision of x is (I - B)' L^-T L^-1 (I - B), a band of b blocks to each side:
every Gaussian Markov chain of order b is of this form (Rue & Held, "Gaussian Markov Random Fields", 2005, section 2.4).

`lax.scan` with its few sums written out compiles to one tight loop. On CPUs it is several times faster than
`associative_scan`, which has more work than the shorter chain saves.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from avistan.family.flow import flattened
from avistan.family.parts import Moved, UnitParameters

BAND_RANGE = 1.0  # of D_n a(t), beyond which it flattens


@jax.custom_vjp
def follow(bands: Float[Array, "N b d d s"], own: Float[Array, "N d S"]) -> Float[Array, "N d S"]:
    """x_n = own_n + sum_k bands[n, k - 1] x_{n-k} for S draws; before the first unit x is 0.

    The bands are those of all draws (s = 1) or each draw's own (s = S). Reverse mode only; its derivative is one
    recurrence in the other direction.
    """
    return _chain(bands, own, reverse=False)


def _follow_forward(
    bands: Float[Array, "N b d d s"], own: Float[Array, "N d S"]
) -> tuple[Float[Array, "N d S"], tuple[Array, Array]]:
    moved = _chain(bands, own, reverse=False)
    return moved, (bands, moved)


def _follow_backward(
    saved: tuple[Array, Array], cotangent: Float[Array, "N d S"]
) -> tuple[Float[Array, "N b d d s"], Float[Array, "N d S"]]:
    bands, moved = saved
    of_own = _chain(_adjoint(bands), cotangent, reverse=True)
    parts = [of_own[:, :, None] * shifted(moved, k)[:, None] for k in range(1, bands.shape[1] + 1)]
    of_bands = jnp.stack(parts, axis=1)
    return of_bands if bands.shape[4] > 1 else jnp.sum(of_bands, axis=4, keepdims=True), of_own


follow.defvjp(_follow_forward, _follow_backward)


def pull_back(bands: Float[Array, "N b d d s"], solved: Float[Array, "N d S"]) -> Float[Array, "N d S"]:
    """(I - B)' p; with p = L^-T e it is the gradient of e'e / 2 by x."""
    adjoint, pulled = _adjoint(bands), solved
    for k in range(1, bands.shape[1] + 1):
        pulled = pulled - times(adjoint[:, k - 1], shifted(solved, -k))
    return pulled


def times(matrices: Float[Array, "*n d d s"], vectors: Float[Array, "*n d S"]) -> Float[Array, "*n d S"]:
    """Products of small matrices, the sum written out: calls of a matrix product cost more than its flops."""
    terms = (matrices[..., :, j, :] * vectors[..., None, j, :] for j in range(matrices.shape[-2]))
    return sum(terms, jnp.zeros_like(vectors))


def shifted(values: Float[Array, "N ..."], by: int) -> Float[Array, "N ..."]:
    """Entry n is that of n - by, and 0 where there is none."""
    size = values.shape[0]
    nothing = jnp.zeros((min(size, abs(by)), *values.shape[1:]), dtype=values.dtype)
    if by >= 0:
        return jnp.concatenate([nothing, values[: max(0, size - by)]])
    return jnp.concatenate([values[-by:], nothing])


def _chain(
    bands: Float[Array, "N b d d s"], own: Float[Array, "N d S"], *, reverse: bool
) -> Float[Array, "N d S"]:
    def step(
        before: tuple[Array, ...], given: tuple[Float[Array, "b d d s"], Float[Array, "d S"]]
    ) -> tuple[tuple[Array, ...], Float[Array, "d S"]]:
        rows, value = given
        for row, neighbour in zip(rows, before, strict=True):
            value = value + times(row, neighbour)
        return (value, *before[:-1]), value

    start = (jnp.zeros_like(own[0]),) * bands.shape[1]
    return jax.lax.scan(step, start, (bands, own), reverse=reverse)[1]


def _adjoint(bands: Float[Array, "N b d d s"]) -> Float[Array, "N b d d s"]:
    """The transposed recurrence: entry (n, k - 1) is bands[n + k, k - 1]', by which unit n + k depends on unit n."""
    parts = [shifted(bands[:, k - 1], -k) for k in range(1, bands.shape[1] + 1)]
    return jnp.swapaxes(jnp.stack(parts, axis=1), 2, 3)


def neighbours(units: UnitParameters, x: Moved) -> Moved:
    """x for units that depend on those before them; B_n + D_n a(t) where scales depend on the globals."""
    local, nu = units.local, units.nu
    d, reach = local.block, local.reach
    shape = (x.value.shape[2], reach, d, d, -1)
    bands, back = nu.below[local.within :].T.reshape(shape), x.back
    if not local.scaled:
        value, pull = follow(bands, x.value.T).T, pull_back(bands, x.pull.T).T
        return x._replace(value=value, pull=pull)
    rates = units.per_direction(nu.growth)[d:]
    more, slope = flattened(jnp.einsum("pkn,sk->nps", rates, units.at), BAND_RANGE)
    scales = units.band_scales.T[:, :, None]
    bands = bands + (scales * more).reshape(shape)
    moved = follow(bands, x.value.T)
    products = [
        x.pull.T[:, :, None] * shifted(moved, k)[:, None] for k in range(1, reach + 1)
    ]  # (N, d, d, S) each
    through = scales * slope * jnp.stack(products, axis=1).reshape(slope.shape)
    back = back - jnp.einsum("pkn,nps->sk", rates, through * units.weight[0].T[:, :, None])
    return x._replace(value=moved.T, pull=pull_back(bands, x.pull.T).T, back=back)
