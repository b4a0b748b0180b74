"""Nonlinear recurrences with a matrix: s_t = cell(x_t + h_{t-1} W, s_{t-1}), with h first in s.

The steps depend on one another, so they run one after another. All else is taken out of the loop:
inputs come as products over all of time, and the gradient of W is one product over all of time,
made after the backward loop.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, Integer

from lru.scan.methods import kept, previous, step_counts, traced_once, valid_steps
from lru.scan.products import product

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


# The cell, whether time runs backwards, and the type of products.
How = tuple[Cell, bool, str]


def gated_scan(
    cell: Cell,
    x: Float[Array, "B T S"],
    W: Float[Array, "N M"],
    state: States,
    *,
    reverse: bool = False,
    resets: Bool[Array, "B T"] | None = None,
    lengths: Integer[Array, " B"] | None = None,
    reset_to: States | None = None,
    compute_dtype: str = "float32",
) -> tuple[Float[Array, "B T N"], States]:
    """Run a cell over time.

    Differentiable in x, W and the state, through h and the last state.

    Args:
        cell: one step. It takes in x_t, with h_{t-1} W added to the last columns.
        x: inputs [B, T, S].
        W: recurrent matrix [N, M], M at most S.
        state: before the first step: arrays [B, N], the first of which is h.
        reverse: run from the last step to the first.
        resets: [B, T] bool; a marked step starts from `reset_to`.
        lengths: [B] number of valid steps of right-padded rows. At padding h is zero and x may
            hold anything, NaN included.
        reset_to: arrays like the state; None is zeros.
        compute_dtype: of the products with W, as in `lru.scan.products`.

    Returns:
        h [B, T, N], and the state after the last valid step of each row.
    """
    masked = _masked(x, resets, lengths, reset_to)
    return _run_once((cell, reverse, compute_dtype), masked[0], W, state, *masked[1:])


def gated_steps(
    cell: Cell,
    x: Float[Array, "B T S"],
    W: Float[Array, "N M"],
    state: States,
    *,
    reverse: bool = False,
    resets: Bool[Array, "B T"] | None = None,
    lengths: Integer[Array, " B"] | None = None,
    reset_to: States | None = None,
    compute_dtype: str = "float32",
) -> tuple[tuple[Float[Array, "B T N"], ...], tuple[Float[Array, "B T N"], ...]]:
    """The states and the activations after each step; arguments as for `gated_scan`."""
    masked = _masked(x, resets, lengths, reset_to)
    return _over_time_once((cell, reverse, compute_dtype), masked[0], W, state, *masked[1:])[1:]


def _masked(x: Array, resets: Array | None, lengths: Array | None, reset_to: Any) -> tuple:
    """The inputs without what the padding holds, fresh states, and where to keep and to step."""
    valid = valid_steps(x, step_counts(lengths, x.shape[1]))
    if resets is None:
        return kept(valid, x), None, None, valid
    return kept(valid, x), reset_to, ~(resets if valid is None else resets & valid), valid


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


def _kept(keep: Array | None, states: Arrays, fresh: Arrays | None) -> Arrays:
    """The states where keep, else fresh ones."""
    if keep is None or fresh is None:
        return tuple(kept(keep, s) for s in states)
    return tuple(jnp.where(keep[..., None], s, new) for s, new in zip(states, fresh, strict=True))


def _over_time(
    how: How,
    x: Array,
    W: Array,
    first: Arrays,
    fresh: Arrays | None,
    keep: Array | None,
    valid: Array | None,
) -> tuple[Arrays, Arrays, Arrays]:
    """The last state, and the states and activations of all steps."""
    cell, reverse, compute_dtype = how
    unmixed, steps = x.shape[2] - W.shape[1], x.shape[1]

    def step(i: Array, carry: tuple[Arrays, Arrays, Arrays]) -> tuple[Arrays, Arrays, Arrays]:
        state, states, activations = carry
        t = steps - 1 - i if reverse else i
        before = _kept(_mask_at(keep, t), state, fresh)
        taken = _at(x, t) + jnp.pad(product(before[0], W, compute_dtype), ((0, 0), (unmixed, 0)))
        active, state = cell.forward(taken, before)
        state = _select(_mask_at(valid, t), state, before)
        return state, _put(states, state, t), _put(activations, active, t)

    # Filled differently: equal arrays would be one, which the loop would have to copy.
    count = len(first) + cell.activations
    room = tuple(jnp.full((*x.shape[:2], W.shape[0]), i, x.dtype) for i in range(count))
    start = (first, room[: len(first)], room[len(first) :])
    return lax.fori_loop(0, steps, step, start)


_over_time_once = traced_once(_over_time, static_argnums=0)


def _forward(
    how: How,
    x: Array,
    W: Array,
    first: Arrays,
    fresh: Arrays | None,
    keep: Array | None,
    valid: Array | None,
) -> tuple[tuple[Array, Arrays], tuple]:
    last, *over_time = _over_time(how, x, W, first, fresh, keep, valid)
    return (kept(valid, over_time[0][0]), last), (W, first, fresh, keep, valid, *over_time)


def _backward(how: How, saved: tuple, gradients: tuple[Array, Arrays]) -> tuple[Any, ...]:
    cell, reverse, compute_dtype = how
    W, first, fresh, keep, valid, states, activations = saved
    dh, dlast = gradients
    dh = kept(valid, dh)
    before = tuple(
        previous(over_time, start, reverse) for over_time, start in zip(states, first, strict=True)
    )
    before = _kept(keep, before, None if fresh is None else tuple(s[:, None] for s in fresh))
    # Outside the loop: inside, every step would read the rows of W as columns, slowly on a CPU.
    W_transposed = W.T
    steps, width = dh.shape[1], W.shape[1]

    def step(i: Array, carry: tuple[Arrays, Arrays, Any]) -> tuple[Arrays, Arrays, Any]:
        d, dx, dfresh = carry
        t = i if reverse else steps - 1 - i
        d = (d[0] + _at(dh, t), *d[1:])
        valid_t = _mask_at(valid, t)
        taken, through = cell.backward(
            _all_at(activations, t),
            _all_at(before, t),
            _all_at(states, t),
            tuple(kept(valid_t, g) for g in d),
        )
        through = (
            through[0] + product(taken[:, -width:], W_transposed, compute_dtype),
            *through[1:],
        )
        through, keep_t = _select(valid_t, through, d), _mask_at(keep, t)
        if keep_t is not None and dfresh is not None:
            dfresh = tuple(x + kept(~keep_t, g) for x, g in zip(dfresh, through, strict=True))
        return tuple(kept(keep_t, g) for g in through), _put(dx, (taken,), t), dfresh

    one_step = jax.tree.map(lambda a: a[:, 0], (activations, before, states, states))
    columns = jax.eval_shape(cell.backward, *one_step)[0].shape[1]
    dfresh = None if fresh is None else tuple(jnp.zeros_like(s) for s in fresh)
    start = (dlast, (jnp.zeros((*dh.shape[:2], columns), dh.dtype),), dfresh)
    dfirst, (dx,), dfresh = lax.fori_loop(0, steps, step, start)
    # Of matrices: with two axes to sum over, the compiler would transpose a copy.
    rows = before[0].reshape(-1, W.shape[0]), dx[..., -width:].reshape(-1, width)
    if compute_dtype == "float32":
        dW = lax.dot_general(*rows, (((0,), (0,)), ((), ())))
    else:
        dW = product(rows[0].T, rows[1], compute_dtype)
    return dx, dW, dfirst, dfresh, None, None


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _run(
    how: How,
    x: Array,
    W: Array,
    state: Arrays,
    fresh: Arrays | None,
    keep: Array | None,
    valid: Array | None,
) -> tuple[Array, Arrays]:
    return _forward(how, x, W, state, fresh, keep, valid)[0]


_run.defvjp(_forward, traced_once(_backward, static_argnums=0))
_run_once = traced_once(_run, static_argnums=0)
