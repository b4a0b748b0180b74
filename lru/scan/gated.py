"""Nonlinear recurrences with a matrix: s_t = cell(x_t + h_{t-1} W, s_{t-1}), with h first in s.

The steps depend on one another, so they run one after another. All else is taken out of the loop:
inputs come as products over all of time, and the gradient of W is one product over all of time,
made after the backward loop.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, Integer

from lru.scan.methods import kept, previous, step_counts, traced_once, valid_steps

States = tuple[Float[Array, "B N"], ...]
Arrays = tuple[Array, ...]


class Cell(NamedTuple):
    """One step of a recurrence, elementwise, and its gradient.

    Attributes:
        forward: what is taken in [B, S] and the state before, to the activations, each [B, N], and
            the state after.
        backward: the activations, the states before and after, and the gradient of the state after,
            to the gradients of what was taken in and of the state before.
        activations: how many there are.
    """

    forward: Callable[[Float[Array, "B S"], States], tuple[States, States]]
    backward: Callable[[States, States, States, States], tuple[Float[Array, "B S"], States]]
    activations: int


def gated_scan(
    cell: Cell,
    x: Float[Array, "B T S"],
    W: Float[Array, "N M"],
    state: States,
    *,
    resets: Bool[Array, "B T"] | None = None,
    lengths: Integer[Array, " B"] | None = None,
) -> tuple[Float[Array, "B T N"], States]:
    """Run a cell over time.

    Differentiable in x, W and the state, through h and the last state.

    Args:
        cell: one step. It takes in x_t, with h_{t-1} W added to the last columns.
        x: inputs [B, T, S].
        W: recurrent matrix [N, M], M at most S.
        state: before the first step: arrays [B, N], the first of which is h.
        resets: [B, T] bool; a marked step starts from zeros.
        lengths: [B] number of valid steps of right-padded rows. At padding h is zero and x may
            hold anything, NaN included.

    Returns:
        h [B, T, N], and the state after the last valid step of each row.
    """
    valid = valid_steps(x, step_counts(lengths, x.shape[1]))
    x = kept(valid, x)
    if resets is not None and valid is not None:
        resets = resets & valid
    return _run_once(cell, x, W, state, None if resets is None else ~resets, valid)


def _at(x: Array, t: Array) -> Array:
    return lax.dynamic_index_in_dim(x, t, 1, keepdims=False, allow_negative_indices=False)


def _all_at(arrays: Arrays, t: Array) -> Arrays:
    return tuple(_at(x, t) for x in arrays)


def _mask_at(mask: Array | None, t: Array) -> Array | None:
    return None if mask is None else _at(mask, t)


def _put(arrays: Arrays, values: Arrays, t: Array) -> Arrays:
    return tuple(
        lax.dynamic_update_index_in_dim(x, value, t, 1, allow_negative_indices=False)
        for x, value in zip(arrays, values, strict=True)
    )


def _select(valid: Array | None, new: Arrays, old: Arrays) -> Arrays:
    if valid is None:
        return new
    return tuple(jnp.where(valid[:, None], n, o) for n, o in zip(new, old, strict=True))


def _forward(
    cell: Cell, x: Array, W: Array, first: Arrays, keep: Array | None, valid: Array | None
) -> tuple[tuple[Array, Arrays], tuple]:
    unmixed = x.shape[2] - W.shape[1]

    def step(t: Array, carry: tuple[Arrays, Arrays, Arrays]) -> tuple[Arrays, Arrays, Arrays]:
        state, states, activations = carry
        before = tuple(kept(_mask_at(keep, t), s) for s in state)
        taken = _at(x, t) + jnp.pad(before[0] @ W, ((0, 0), (unmixed, 0)))
        active, state = cell.forward(taken, before)
        state = _select(_mask_at(valid, t), state, before)
        return state, _put(states, state, t), _put(activations, active, t)

    # Filled differently: equal arrays would be one, which the loop would have to copy.
    count = len(first) + cell.activations
    room = tuple(jnp.full((*x.shape[:2], W.shape[0]), i, x.dtype) for i in range(count))
    start = (first, room[: len(first)], room[len(first) :])
    last, states, activations = lax.fori_loop(0, x.shape[1], step, start)
    return (kept(valid, states[0]), last), (W, first, keep, valid, states, activations)


def _backward(cell: Cell, saved: tuple, gradients: tuple[Array, Arrays]) -> tuple:
    W, first, keep, valid, states, activations = saved
    dh, dlast = gradients
    dh = kept(valid, dh)
    before = tuple(
        kept(keep, previous(over_time, start, False))
        for over_time, start in zip(states, first, strict=True)
    )
    # Outside the loop: inside, every step would read the rows of W as columns, slowly on a CPU.
    W_transposed = W.T
    steps, width = dh.shape[1], W.shape[1]

    def step(i: Array, carry: tuple[Arrays, Arrays]) -> tuple[Arrays, Arrays]:
        d, dx = carry
        t = steps - 1 - i
        d = (d[0] + _at(dh, t), *d[1:])
        valid_t = _mask_at(valid, t)
        taken, through = cell.backward(
            _all_at(activations, t),
            _all_at(before, t),
            _all_at(states, t),
            tuple(kept(valid_t, g) for g in d),
        )
        through = (through[0] + taken[:, -width:] @ W_transposed, *through[1:])
        through = tuple(kept(_mask_at(keep, t), g) for g in _select(valid_t, through, d))
        return through, _put(dx, (taken,), t)

    one_step = jax.tree.map(lambda a: a[:, 0], (activations, before, states, states))
    columns = jax.eval_shape(cell.backward, *one_step)[0].shape[1]
    start = (dlast, (jnp.zeros((*dh.shape[:2], columns), dh.dtype),))
    dfirst, (dx,) = lax.fori_loop(0, steps, step, start)
    # Of matrices: with two axes to sum over, the compiler would transpose a copy.
    rows = before[0].reshape(-1, W.shape[0]), dx[..., -width:].reshape(-1, width)
    dW = lax.dot_general(*rows, (((0,), (0,)), ((), ())))
    return dx, dW, dfirst, None, None


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _run(
    cell: Cell, x: Array, W: Array, state: Arrays, keep: Array | None, valid: Array | None
) -> tuple[Array, Arrays]:
    return _forward(cell, x, W, state, keep, valid)[0]


_run.defvjp(_forward, traced_once(_backward, static_argnums=0))
_run_once = traced_once(_run, static_argnums=0)
