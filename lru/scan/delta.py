"""The delta rule: S_t = a_t S_{t-1} + k_t u_t^T with u_t = β_t (v_t - a_t S_{t-1}^T k_t).

The state S [P, Q] of a head maps keys to values, and a step replaces the share β of what it held
for a key. Outputs are S_t^T q_t / sqrt(P). With a = 1 Yang et al. 2024 (arXiv 2406.06484), section
2; with a decay Yang et al. 2024 (arXiv 2412.06464), section 3. All u of a chunk solve one
triangular system (section 3.2 of the first, 3.3 of the second).
"""

import math
from functools import partial
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Integer

from lru.scan.matrices import StatesOf, Steps, over_chunks


def delta_scan(
    q: Float[Array, "B T H P"],
    k: Float[Array, "B T H P"],
    v: Float[Array, "B T H Q"],
    beta: Float[Array, "B T H"] | Float[Array, "B T H Q"],
    S0: Float[Array, "B H P Q"] | None = None,
    *,
    log_decay: Float[Array, "B T H"] | None = None,
    reverse: bool = False,
    resets: Bool[Array, "B T"] | None = None,
    lengths: Integer[Array, " B"] | None = None,
    reset_to: Float[Array, "B H P Q"] | None = None,
    chunk_length: int = 32,
    states: bool = False,
) -> tuple[Float[Array, "B T H ..."], Float[Array, "B H P Q"]]:
    """Run the delta rule over time.

    Differentiable in every array, through both results.

    Args:
        q: queries, what is read from the state.
        k: keys; the state stays bounded if their length is at most 1.
        v: values.
        beta: share of a value that is replaced, for all of it or for each channel; with shares for
            channels the steps run one after another.
        S0: state before the first step; None is zero.
        log_decay: logarithm of the factor a of the state before each step; None for 1.
        reverse: run from the last step to the first.
        resets: [B, T] bool; a marked step starts from `reset_to`.
        lengths: [B] number of valid steps of right-padded rows; at padding the other arrays may
            hold anything, NaN included.
        reset_to: state of marked steps; None is zero.
        chunk_length: steps that are solved at once; 0 for all.
        states: give S [B, T, H, P, Q] after every step in place of the outputs, step by step.

    Returns:
        Outputs, zero at padding, and the state after the last valid step of each row; both are
        float32, or float64 if an argument is.

    Raises:
        ValueError: if the number of steps of a chunk is negative.
    """
    given = [x for x in (q, k, v, beta, log_decay, S0, reset_to) if x is not None]
    dtype = jnp.result_type(jnp.float32, *given)
    rows, _, heads, width = k.shape
    start = jnp.zeros((rows, heads, width, v.shape[-1]), dtype) if S0 is None else S0.astype(dtype)
    decay = [] if log_decay is None else [log_decay]
    return over_chunks(
        StatesOf(_advance) if states else _advance,
        tuple(x.astype(dtype) for x in (q / math.sqrt(width), k, v, beta, *decay)),
        start,
        reverse=reverse,
        resets=resets,
        lengths=lengths,
        reset_to=None if reset_to is None else reset_to.astype(dtype),
        chunk_length=chunk_length if beta.ndim == 3 and not states else 1,
    )


def _advance(S: Array, fresh: Array | None, steps: Steps) -> tuple[Array, Array]:
    q, k, v, beta, *decay = steps.arrays
    beta = beta if beta.ndim == v.ndim else beta[..., None]
    overlap, attention = k @ k.mT, jnp.where(steps.same, q @ k.mT, 0)
    k_start, q_start, k_end = k, q, jnp.where(steps.same[..., -1, :, None], k, 0)
    S_end = steps.begun(S, fresh)
    if decay:
        # since[t] is the decay from the start of the chunk or document to step t, in logarithms.
        since = steps.summed(decay[0])
        between = jnp.where(steps.same, since[..., None] - since[..., None, :], -jnp.inf)
        between = jnp.exp(between)
        overlap, attention = between * overlap, between * attention
        since = jnp.exp(since)[..., None]
        k_start, q_start, k_end = since * k, since * q, between[..., -1, :, None] * k
        S_end = since[..., -1:, :] * S_end
    u = beta * (v - steps.read(k_start, S, fresh))
    if u.shape[-2] > 1:
        before = jnp.where(steps.same & ~jnp.eye(u.shape[-2], dtype=bool), beta * overlap, 0)
        u = _solved(before, u)
    return S_end + k_end.mT @ u, steps.read(q_start, S, fresh) + attention @ u


def _solved(A: Float[Array, "*rows L L"], b: Float[Array, "*rows L Q"]) -> Float[Array, "..."]:
    """The solution u of u + A u = b, for A that is zero from its diagonal on.

    On a CPU row after row of all systems at once. The routine of LAPACK that XLA has there takes
    them one by one, and its threads keep a core busy for tenths of a second after each call.
    """
    steps = b.shape[-2]

    def solve(transposed: bool, _: Any, b: Array) -> Array:
        def row(A: Array, i: Array, u: Array) -> Array:
            t = steps - 1 - i if transposed else i
            of_row = partial(lax.dynamic_index_in_dim, index=t, axis=-2)
            return lax.dynamic_update_index_in_dim(u, of_row(u) - of_row(A) @ u, t, -2)

        def by_rows(A: Array, b: Array) -> Array:
            return lax.fori_loop(1, steps, partial(row, A.mT if transposed else A), b)

        def by_library(A: Array, b: Array) -> Array:
            return lax.linalg.triangular_solve(
                A, b, left_side=True, lower=True, unit_diagonal=True, transpose_a=transposed
            )

        return lax.platform_dependent(A, b, cpu=by_rows, default=by_library)

    return lax.custom_linear_solve(
        lambda u: u + A @ u, b, partial(solve, False), partial(solve, True)
    )
