"""Selective scan: h_t = exp(dt_t A) h_{t-1} + dt_t B_t u_t for each channel, y_t = C_t h_t.

A channel has a state of M numbers with factors of their own, and B_t and C_t [M] are common to the
channels of a group. Gu and Dao 2023 (arXiv 2312.00752), section 3.2 and algorithm 2; B by Euler's
rule, as their code has it. All states [B, T, M, N] would be M times the inputs, so the states
before chunks of time are kept, and gradients run each chunk once more (section 3.3.2 there).
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Integer

from lru.scan.linear import linear_scan
from lru.scan.methods import (
    LINEAR_METHODS,
    marked_steps,
    masked,
    step_counts,
    traced_once,
    valid_steps,
)
from lru.scan.portability import is_portable


def selective_scan(
    u: Float[Array, "B T N"],
    dt: Float[Array, "B T N"],
    A: Float[Array, "M N"],
    B: Float[Array, "B T G M"],
    C: Float[Array, "B T G M"],
    h0: Float[Array, "B M N"] | None = None,
    *,
    reverse: bool = False,
    resets: Bool[Array, "B T"] | None = None,
    lengths: Integer[Array, " B"] | None = None,
    reset_to: Float[Array, "B M N"] | None = None,
    chunk_length: int = 32,
    method: str = "auto",
) -> tuple[Float[Array, "B T N"], Float[Array, "B M N"]]:
    """Run the recurrence over time.

    Differentiable in every array, through both results.

    Args:
        u: inputs of the channels.
        dt: step sizes.
        A: rates of the states, below 0.
        B: weights from inputs to states, of G groups of N / G channels that follow each other.
        C: weights from states to outputs.
        h0: state before the first step; None is zero.
        reverse: run from the last step to the first.
        resets: [B, T] bool; a marked step starts from `reset_to`.
        lengths: [B] number of valid steps of right-padded rows; at padding the other arrays may
            hold anything, NaN included.
        reset_to: state of marked steps; None is zero.
        chunk_length: steps whose states are there at once; 0 for all.
        method: a name in `LINEAR_METHODS`, which then runs the steps of a chunk, or "auto".
            `sequential` makes no array of factors.

    Returns:
        Outputs, zero at padding, and the state after the last valid step of each row; both are
        float32, or float64 if an argument is.

    Raises:
        ValueError: if the number of steps of a chunk is negative, or resets have another shape.
        UnknownNameError: if there is no such method.
    """
    if chunk_length < 0:
        raise ValueError(f"chunk_length must be at least 0, got {chunk_length}")
    if method != "auto":
        method = LINEAR_METHODS.resolve(method)
    elif jax.default_backend() == "cpu":
        method = "sequential"
    # A portable program may have no number for T.
    length = 1 if is_portable() else min(chunk_length or u.shape[1], u.shape[1])
    method = "sequential" if is_portable() else method
    lengths = step_counts(lengths, u.shape[1])
    return _scan(length, method, reverse, u, dt, A, B, C, h0, reset_to, resets, lengths)


def transitions(
    u: Float[Array, "*rest N"],
    dt: Float[Array, "*rest N"],
    A: Float[Array, "M N"],
    B: Float[Array, "*rest G M"],
) -> tuple[Float[Array, "*rest M N"], Float[Array, "*rest M N"]]:
    """Factors and inputs of the states of all steps, for `linear_scan`."""
    B = jnp.repeat(B.mT, A.shape[1] // B.shape[-2], axis=-1)
    return jnp.exp(dt[..., None, :] * A), (dt * u)[..., None, :] * B


class _Steps(NamedTuple):
    """Steps of a chunk: L first, and channels as their groups have them."""

    u: Float[Array, "L B *G R"]
    dt: Float[Array, "L B *G R"]
    B: Float[Array, "L B *G M"]
    C: Float[Array, "L B *G M"]
    marked: Bool[Array, "L B"] | None


# States are [B, G, M, N / G]: sums over M add whole rows, and sums over channels are products. An
# axis of one group is left out: with it XLA's loops on a CPU take five times as long.
@partial(traced_once, static_argnums=(0, 1, 2))
def _scan(
    length: int,
    method: str,
    reverse: bool,
    u: Array,
    dt: Array,
    A: Array,
    B: Array,
    C: Array,
    h0: Array | None,
    reset_to: Array | None,
    resets: Array | None,
    lengths: Array | None,
) -> tuple[Array, Array]:
    given = [x for x in (u, dt, A, B, C, h0, reset_to) if x is not None]
    dtype = jnp.result_type(jnp.float32, *given)
    (rows, steps, width), (groups, n_states) = u.shape, B.shape[2:]
    valid = valid_steps(u, lengths)
    marked = marked_steps(u, resets, valid)
    rest = 0 if length == 1 else -steps % length

    def cut(x: Array) -> Array:
        """[B, T, ...] as chunks [T / L, L, B, ...]; steps of no duration are added at the end."""
        x = jnp.pad(x, ((0, 0), (0, rest), *[(0, 0)] * (x.ndim - 2)))
        x = jnp.moveaxis(x, 1, 0)
        count = x.shape[0] if length == 1 else x.shape[0] // length
        return x.reshape(count, length, *x.shape[1:])

    def grouped(x: Array) -> Array:
        of_group = math.prod(x.shape[2:]) // groups
        shape = (of_group,) if groups == 1 else (groups, of_group)
        return cut(masked(valid, x).astype(dtype).reshape(*x.shape[:2], *shape))

    def enter(h: Array) -> Array:
        h = h.astype(dtype)
        if groups == 1:
            return h
        return jnp.moveaxis(h.reshape(*h.shape[:-1], groups, width // groups), -2, -3)

    def leave(h: Array) -> Array:
        return h if groups == 1 else jnp.moveaxis(h, -3, -2).reshape(rows, n_states, width)

    marks = None if marked is None else cut(marked)
    series = _Steps(grouped(u), grouped(dt), grouped(B), grouped(C), marks)
    start = enter(jnp.zeros((rows, n_states, width)) if h0 is None else h0)
    fresh = enter(jnp.zeros((1, n_states, width)) if reset_to is None else reset_to)
    solve: Any = _by_steps if method == "sequential" else partial(_by_method, method)
    y, last = solve(reverse, series, enter(A), start, fresh)
    y = jnp.moveaxis(y.reshape(y.shape[0] * length, rows, width), 0, 1)
    return masked(valid, y[:, :steps] if rest else y), leave(last)


def _of_chunk(
    method: str,
    reverse: bool,
    marked: Array | None,
    series: tuple,
    A: Array,
    h: Array,
    fresh: Array,
) -> tuple[Array, Array]:
    """The steps of a chunk at once, by a linear scan over [B, L, M N]."""
    u, dt, B, C = series
    rows, lanes, length = len(h), math.prod(h.shape[1:]), len(u)

    def flat(x: Array) -> Array:
        return jnp.moveaxis(x, 0, 1).reshape(rows, length, lanes)

    states, last = linear_scan(
        flat(jnp.exp(dt[..., None, :] * A)),
        flat((dt * u)[..., None, :] * B[..., None]),
        h.reshape(rows, lanes),
        reverse=reverse,
        resets=None if marked is None else marked.T,
        reset_to=jnp.broadcast_to(fresh, h.shape).reshape(rows, lanes),
        method=method,
        donate=True,
    )
    states = jnp.moveaxis(states, 1, 0).reshape(length, *h.shape)
    return jnp.sum(states * C[..., None], -2), last.reshape(h.shape)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _by_method(
    method: str, reverse: bool, series: _Steps, A: Array, start: Array, fresh: Array
) -> tuple[Array, Array]:
    """Chunk after chunk, each by a linear scan."""
    return _forward_by_method(method, reverse, series, A, start, fresh)[0]


def _forward_by_method(
    method: str, reverse: bool, series: _Steps, A: Array, start: Array, fresh: Array
) -> tuple[tuple[Array, Array], tuple]:
    def chunk(h: Array, steps: _Steps) -> tuple[Array, tuple[Array, Array]]:
        y, last = _of_chunk(method, reverse, steps.marked, steps[:4], A, h, fresh)
        return last, (h, y)

    last, (starts, y) = lax.scan(chunk, start, series, reverse=reverse)
    return (y, last), (series, A, starts, fresh)


def _backward_by_method(
    method: str, reverse: bool, saved: tuple, gradients: tuple[Array, Array]
) -> tuple:
    series, A, starts, fresh = saved
    dy, dh = gradients

    def chunk(carry: tuple, at_chunk: tuple) -> tuple:
        dh, *sums = carry
        steps, start, dy = at_chunk
        run = partial(_of_chunk, method, reverse, steps.marked)
        _, pull = jax.vjp(run, steps[:4], A, start, fresh)
        dseries, dA, dh, dfresh = pull((dy, dh))
        return (dh, *map(jnp.add, sums, (dA, dfresh))), dseries

    carry = (dh, jnp.zeros_like(A), jnp.zeros_like(fresh))
    over_time = (series, starts, dy)
    (dh, dA, dfresh), of_series = lax.scan(chunk, carry, over_time, reverse=not reverse)
    du, ddt, dB, dC = of_series
    return _Steps(du, ddt, dB, dC, None), dA, dh, dfresh


_by_method.defvjp(_forward_by_method, traced_once(_backward_by_method, static_argnums=(0, 1)))


def _found(marked: Array | None, fresh: Array, h: Array) -> Array:
    """The state that a step finds."""
    return h if marked is None else jnp.where(_beside(marked, h), fresh, h)


def _beside(marked: Array, h: Array) -> Array:
    return marked.reshape(-1, *[1] * (h.ndim - 1))


def _next(steps: _Steps, A: Array, h: Array) -> tuple[Array, Array]:
    """The factor of a step, and the state after it."""
    factor = jnp.exp(steps.dt[..., None, :] * A)
    return factor, factor * h + (steps.dt * steps.u)[..., None, :] * steps.B[..., None]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _by_steps(
    reverse: bool, series: _Steps, A: Array, start: Array, fresh: Array
) -> tuple[Array, Array]:
    """One step after another: on a CPU the state and what a step needs stay in its cache."""
    return _forward(reverse, series, A, start, fresh)[0]


def _forward(
    reverse: bool, series: _Steps, A: Array, start: Array, fresh: Array
) -> tuple[tuple[Array, Array], tuple]:
    def step(h: Array, steps: _Steps) -> tuple[Array, Array]:
        _, h = _next(steps, A, _found(steps.marked, fresh, h))
        return h, jnp.sum(h * steps.C[..., None], -2)

    def chunk(h: Array, steps: _Steps) -> tuple[Array, tuple[Array, Array]]:
        last, y = lax.scan(step, h, steps, reverse=reverse)
        return last, (h, y)

    last, (starts, y) = lax.scan(chunk, start, series, reverse=reverse)
    return (y, last), (series, A, starts, fresh)


def _backward(reverse: bool, saved: tuple, gradients: tuple[Array, Array]) -> tuple:
    series, A, starts, fresh = saved
    dy, dh = gradients

    def again(h: Array, steps: _Steps) -> tuple[Array, Array]:
        found = _found(steps.marked, fresh, h)
        return _next(steps, A, found)[1], found

    def back(carry: tuple, at_t: tuple) -> tuple:
        dh, dA, dfresh = carry
        steps, found, dy = at_t
        u, dt, B, C, marked = steps
        factor, h = _next(steps, A, found)
        dh = dh + dy[..., None, :] * C[..., None]
        dB = jnp.einsum("...mr,...r->...m", dh, dt * u)
        dC = jnp.einsum("...mr,...r->...m", h, dy)
        dx = jnp.sum(dh * B[..., None], -2)
        dh = dh * factor
        dexponent = dh * found
        ddt = u * dx + jnp.sum(dexponent * A, -2)
        dA = dA + dexponent * dt[..., None, :]
        if marked is not None:
            at_reset = _beside(marked, dh)
            dfresh, dh = dfresh + jnp.where(at_reset, dh, 0), jnp.where(at_reset, 0, dh)
        return (dh, dA, dfresh), (dt * dx, ddt, dB, dC)

    def chunk(carry: tuple, at_chunk: tuple) -> tuple:
        steps, start, dy = at_chunk
        found = lax.scan(again, start, steps, reverse=reverse)[1]
        return lax.scan(back, carry, (steps, found, dy), reverse=not reverse)

    zeros = jnp.zeros_like(dh)
    carry = (dh, zeros, None if series.marked is None else zeros)
    over_time = (series, starts, dy)
    (dh, dA, dfresh), of_series = lax.scan(chunk, carry, over_time, reverse=not reverse)
    of_fresh: Any = jnp.zeros_like(fresh)
    if dfresh is not None:
        of_fresh = dfresh if len(fresh) == len(dfresh) else dfresh.sum(0, keepdims=True)
    du, ddt, dB, dC = of_series
    return _Steps(du, ddt, dB, dC, None), dA.sum(0), dh, of_fresh


_by_steps.defvjp(_forward, traced_once(_backward, static_argnums=0))
