"""The scan of Mamba-2: S_t = a_t S_{t-1} + B_t x_t^T, y_t = S_t^T C_t, with one factor a_t a head.

The state S [M, P] of a head has a row for each of the M numbers of B_t and C_t, which are common to
the heads of a group. Dao and Gu 2024 (arXiv 2405.21060), sections 5 (one factor) and 6 (chunks).
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer

from lru.scan.matrices import Steps, over_chunks


def ssd_scan(
    x: Float[Array, "B T H P"],
    log_decay: Float[Array, "B T H"],
    B: Float[Array, "B T G M"],
    C: Float[Array, "B T G M"],
    S0: Float[Array, "B H M P"] | None = None,
    *,
    reverse: bool = False,
    resets: Bool[Array, "B T"] | None = None,
    lengths: Integer[Array, " B"] | None = None,
    reset_to: Float[Array, "B H M P"] | None = None,
    chunk_length: int = 64,
) -> tuple[Float[Array, "B T H P"], Float[Array, "B H M P"]]:
    """Run the recurrence over time.

    Differentiable in every array, through both results.

    Args:
        x: inputs of the heads.
        log_decay: logarithm of the factor a of the state before each step.
        B: weights from inputs to states, of G groups of H / G heads that follow each other.
        C: weights from states to outputs.
        S0: state before the first step; None is zero.
        reverse: run from the last step to the first.
        resets: [B, T] bool; a marked step starts from `reset_to`.
        lengths: [B] number of valid steps of right-padded rows; at padding the other arrays may
            hold anything, NaN included.
        reset_to: state of marked steps; None is zero.
        chunk_length: steps that are computed at once; 0 for all.

    Returns:
        Outputs, zero at padding, and the state after the last valid step of each row; both are
        float32, or float64 if an argument is.

    Raises:
        ValueError: if the number of steps of a chunk is negative.
    """
    given = [z for z in (x, log_decay, B, C, S0, reset_to) if z is not None]
    dtype = jnp.result_type(jnp.float32, *given)
    rows, _, heads, width = x.shape
    start = jnp.zeros((rows, heads, B.shape[-1], width)) if S0 is None else S0
    return over_chunks(
        _advance,
        tuple(z.astype(dtype) for z in (x, log_decay, B, C)),
        start.astype(dtype),
        reverse=reverse,
        resets=resets,
        lengths=lengths,
        reset_to=None if reset_to is None else reset_to.astype(dtype),
        chunk_length=chunk_length,
    )


def _advance(S: Array, fresh: Array | None, steps: Steps) -> tuple[Array, Array]:
    x, log_decay, B, C = steps.arrays
    # since[t] is the decay from the start of the chunk or document to step t, in logarithms.
    since = steps.summed(log_decay)
    between = jnp.where(steps.same, since[..., None] - since[..., None, :], -jnp.inf)
    between, since = jnp.exp(between), jnp.exp(since)[..., None]
    attention, B, C = (jnp.repeat(z, x.shape[1] // B.shape[1], axis=1) for z in (C @ B.mT, B, C))
    y = steps.read(since * C, S, fresh) + (between * attention) @ x
    end = since[..., -1:, :] * steps.begun(S, fresh)
    return end + (between[..., -1, :, None] * B).mT @ x, y
