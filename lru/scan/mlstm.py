"""The scan of an mLSTM: C_t = σ(f_t) C_{t-1} + e^{i_t} k_t v_t^T / sqrt(P).

The normaliser n_t is the same with 1 in place of v_t, and outputs are
C_t^T q_t / (max(|n_t^T q_t|, 1) + ε e^{m_t}). The state is C and n times e^{-m}, with
m_t = max(log σ(f_t) + m_{t-1}, i_t), so that no exponential overflows. Beck et al. 2024
(arXiv 2405.04517), section 2.3 and, for many steps at once, appendix A.3.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer

from lru.scan.matrices import StatesOf, Steps, over_chunks

# Beside the stabilised denominator, so that what it adds to the other grows with m.
EPSILON = 1e-6

# C [B, H, P, Q], n [B, H, P] and m [B, H].
Memory = tuple[Float[Array, "B H P Q"], Float[Array, "B H P"], Float[Array, "B H"]]


def mlstm_scan(
    q: Float[Array, "B T H P"],
    k: Float[Array, "B T H P"],
    v: Float[Array, "B T H Q"],
    i: Float[Array, "B T H"],
    f: Float[Array, "B T H"],
    state: Memory | None = None,
    *,
    reverse: bool = False,
    resets: Bool[Array, "B T"] | None = None,
    lengths: Integer[Array, " B"] | None = None,
    reset_to: Memory | None = None,
    chunk_length: int = 32,
    states: bool = False,
) -> tuple[Float[Array, "B T H ..."], Memory]:
    """Run the matrix memory of an mLSTM over time.

    Differentiable in every array, through both results.

    Args:
        q: queries.
        k: keys.
        v: values.
        i: pre-activations of the input gate, which is their exponential.
        f: pre-activations of the forget gate, a sigmoid.
        state: C, n and m before the first step; None is zeros.
        reverse: run from the last step to the first.
        resets: [B, T] bool; a marked step starts from `reset_to`.
        lengths: [B] number of valid steps of right-padded rows; at padding the other arrays may
            hold anything, NaN included.
        reset_to: state of marked steps; None is zeros.
        chunk_length: steps that are computed at once; 0 for all.
        states: give C [B, T, H, P, Q] after every step in place of the outputs, step by step.

    Returns:
        Outputs, zero at padding, and C, n and m after the last valid step of each row; all are
        float32, or float64 if an argument is.

    Raises:
        ValueError: if the number of steps of a chunk is negative.
    """
    leaves = jax.tree.leaves((q, k, v, i, f, state, reset_to))
    dtype = jnp.result_type(jnp.float32, *leaves)
    rows, _, heads, width = k.shape
    if state is None:
        shape = (rows, heads, width, v.shape[-1])
        state = (jnp.zeros(shape, dtype), jnp.zeros(shape[:3], dtype), jnp.zeros(shape[:2], dtype))
    v = jnp.concatenate([v, jnp.ones_like(v[..., :1])], axis=-1)
    h, (C, m) = over_chunks(
        StatesOf(_advance) if states else _advance,
        tuple(x.astype(dtype) for x in (q, k / math.sqrt(width), v, i, f)),
        _joined(state, dtype),
        reverse=reverse,
        resets=resets,
        lengths=lengths,
        reset_to=None if reset_to is None else _joined(reset_to, dtype),
        chunk_length=1 if states else chunk_length,
    )
    return h[..., :-1] if states else h, (C[..., :-1], C[..., -1], m)


def _joined(state: Memory, dtype: jnp.dtype) -> tuple[Array, Array]:
    """C with n as its last column, that of a value of 1, and m."""
    C, n, m = (x.astype(dtype) for x in state)
    return jnp.concatenate([C, n[..., None]], axis=-1), m


def _advance(
    state: tuple[Array, Array], fresh: tuple[Array, Array] | None, steps: Steps
) -> tuple[tuple[Array, Array], Array]:
    q, k, v, i, f = steps.arrays
    C, m = state
    fresh_C, fresh_m = (None, None) if fresh is None else fresh
    log_f = jax.nn.log_sigmoid(f)
    if steps.valid is not None:
        i, log_f = jnp.where(steps.valid, i, -jnp.inf), jnp.where(steps.valid, log_f, 0)
    since = steps.summed(log_f)
    m = m[..., None]
    if steps.first is not None:
        m = jnp.where(steps.first, m, 0 if fresh_m is None else fresh_m[..., None])
    carried = since + m
    # Logarithms of the weights with which step t sees the input of step s.
    seen = since[..., None] - since[..., None, :] + i[..., None, :]
    seen = jnp.where(steps.same, seen, -jnp.inf)
    m = jnp.maximum(carried, seen.max(axis=-1))
    carried = jnp.exp(carried - m)[..., None]
    seen = jnp.exp(seen - m[..., None])
    h = steps.read(carried * q, C, fresh_C) + (seen * (q @ k.mT)) @ v
    h = h[..., :-1] / (jnp.maximum(jnp.abs(h[..., -1:]), jnp.exp(-m)[..., None]) + EPSILON)
    end = carried[..., -1:, :] * steps.begun(C, fresh_C)
    return (end + (seen[..., -1, :, None] * k).mT @ v, m[..., -1]), h
