"""Newton's method over all steps at once, for s_t = f(s_{t-1}, x_t).

With s a guess and r_t = f(s_{t-1}, x_t) - s_t its residual, the correction d solves the linear
recurrence d_t = J_t d_{t-1} + r_t, J the Jacobian of f at s: as many rounds as a parallel scan
takes. Each correction makes at least one more step exact, so T of them suffice; near the solution
they converge quadratically. Lim et al. 2024 (arXiv 2309.12252, "DEER") solve for s instead, which
rounds more. With part of J, as its diagonal, the solution is the same and convergence linear
(Gonzalez et al. 2024, arXiv 2407.19115). The gradient solves the transposed recurrence backwards.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float

from lru.scan.linear import block_scan, linear_scan

# Units in the last place that residuals may have: what rounding alone makes of sums over a width
# of hundreds.
UNITS = 16


class Solution(NamedTuple):
    """End of the iterations.

    Attributes:
        value: [B, T, P, N].
        residual: of it, alike.
        iterations: how many there were.
        converged: whether the residual is that of rounding.
    """

    value: Float[Array, "B T P N"]
    residual: Float[Array, "B T P N"]
    iterations: Array
    converged: Bool[Array, ""]


def iterate(
    target: Callable[[Array], Array],
    blocks: Callable[[Array], Array],
    scale: Callable[[Array], Array],
    start: Float[Array, "B T P N"],
    *,
    reverse: bool,
    limit: int,
) -> Solution:
    """Solve s = target(s), where s_t depends on the step before it alone.

    Args:
        target: the right side.
        blocks: from s to (part of) the derivatives of its steps, as `linear_blocks` takes them.
        scale: magnitudes beside which residuals are small or not.
        start: first guess.
        reverse: whether a step depends on the one after it.
        limit: most iterations.
    """

    def solved(s: Array, r: Array) -> Array:
        # False where something is not a number.
        return jnp.all(jnp.abs(r) <= UNITS * jnp.finfo(s.dtype).eps * scale(s))

    def going(carry: tuple[Array, Array, Array]) -> Array:
        s, r, count = carry
        return ~solved(s, r) & (count < limit)

    def corrected(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        s, r, count = carry
        better = s + linear_blocks(blocks(s), r, reverse)
        # Products of expanding steps overflow; what comes before them is right all the same.
        s = jnp.where(jnp.isfinite(better), better, s)
        return s, target(s) - s, count + 1

    s, r, count = lax.while_loop(going, corrected, (start, target(start) - start, jnp.int32(0)))
    return Solution(s, r, count, solved(s, r))


def linear_blocks(
    J: Float[Array, "B T Q Q M"], b: Float[Array, "B T P N"], reverse: bool
) -> Float[Array, "B T P N"]:
    """Solve d_t = J_t d_{t-1} + b_t from zero.

    Args:
        J: M blocks of Q x Q for each step, over the fields of a unit (Q = P, M = N) or all of a
            state (Q = P N, M = 1).
        b: inputs.
        reverse: run from the last step to the first.
    """
    shape, b = b.shape, b.reshape(*b.shape[:2], J.shape[2], J.shape[4])
    if J.shape[2] == 1:
        d, _ = linear_scan(J[:, :, 0, 0], b[:, :, 0], reverse=reverse)
        return d.reshape(shape)
    if J.shape[2] == 2:
        return block_scan(J, b, reverse=reverse)[0].reshape(shape)

    def combine(first: tuple[Array, Array], second: tuple[Array, Array]) -> tuple[Array, Array]:
        (J_1, b_1), (J_2, b_2) = first, second
        return _times(J_2, J_1), _times(J_2, b_1[..., None, :])[..., 0, :] + b_2

    return lax.associative_scan(combine, (J, b), reverse=reverse, axis=1)[1].reshape(shape)


def _times(A: Float[Array, "B T Q Q M"], B: Float[Array, "B T Q R M"]) -> Float[Array, "..."]:
    """Products of blocks: small ones in one pass over memory, a large one as a matrix."""
    if A.shape[-1] == 1:
        return (A[..., 0] @ B[..., 0])[..., None]
    return jnp.sum(A[..., None, :] * B[..., None, :, :, :], axis=-3)


def transposed(J: Float[Array, "B T Q Q M"], reverse: bool) -> Float[Array, "B T Q Q M"]:
    """The blocks of the recurrence of gradients, in which a step is that of the one behind it."""
    swapped = jnp.swapaxes(J, 2, 3)
    none = jnp.zeros_like(swapped[:, :1])
    parts = [none, swapped[:, :-1]] if reverse else [swapped[:, 1:], none]
    return jnp.concatenate(parts, axis=1)


def dense_blocks(
    step: Callable[[Array], Array], before: Float[Array, "B T P N"]
) -> Float[Array, "B T M M 1"]:
    """Jacobians of a step in all of the state before it."""
    basis = jnp.eye(before.shape[2] * before.shape[3], dtype=before.dtype)
    columns = _along(step, before, basis.reshape(-1, *before.shape[2:]))
    return jnp.moveaxis(columns.reshape(*columns.shape[:3], -1), 0, -1)[..., None]


def unit_blocks(
    step: Callable[[Array], Array], before: Float[Array, "B T P N"]
) -> Float[Array, "B T P P N"]:
    """Jacobians of a step, in which no unit reads another, in the fields of each unit."""
    basis = jnp.eye(before.shape[2], dtype=before.dtype)[..., None]
    return jnp.moveaxis(_along(step, before, jnp.tile(basis, before.shape[3])), 0, 3)


def _along(step: Callable[[Array], Array], before: Array, basis: Array) -> Array:
    _, derivative = jax.linearize(step, before)
    return jax.vmap(lambda d: derivative(jnp.broadcast_to(d, before.shape)))(basis)
