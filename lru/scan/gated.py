"""Nonlinear recurrences with a matrix: s_t = cell(x_t + h_{t-1} W, s_{t-1}), with h first in s.

The steps depend on one another, so they run one after another. Inputs come as products over all of
time. On a CPU the loop of a cell that `lru.scan.cpu` knows runs there; elsewhere it is one of JAX,
out of which the gradient of W is taken, as one product over all of time.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, Integer

from lru.scan import cpu
from lru.scan.methods import (
    at_step,
    marked_steps,
    masked,
    previous,
    put_step,
    step_counts,
    traced_once,
    valid_steps,
)
from lru.scan.native import on_cpu
from lru.scan.products import multiply, weight_gradient
from lru.scan.select import FUSED, select

States = tuple[Float[Array, "B N"], ...]
Arrays = tuple[Array, ...]


class GatedCell(NamedTuple):
    """One step of a recurrence, elementwise, and its gradient.

    Attributes:
        forward: pre-activations [B, S] and the state before, to the activations, each [B, N], and
            the state after. An optional last argument, a `Gate`, takes the name and the value of
            each gate and returns the value with which the cell goes on.
        backward: the activations, the states before and after, and the gradient of the state after,
            to the gradients of the pre-activations and of the state before.
        activations: how many the gradient needs.
        native: its name in `cpu/gated.cc`; empty if it is not there.
    """

    forward: Callable[..., tuple[States, States]]
    backward: Callable[[States, States, States, States], tuple[Float[Array, "B S"], States]]
    activations: int
    native: str = ""


Gate = Callable[[str, Float[Array, "B N"]], Float[Array, "B N"]]


def unforced(name: str, value: Float[Array, "B N"]) -> Float[Array, "B N"]:
    """The `Gate` that leaves every gate as it is."""
    del name
    return value


class How(NamedTuple):
    """All of a problem that is no array.

    Attributes:
        cell: one step.
        columns: number S of inputs of a step.
        reverse: from the last step to the first.
        compute_dtype: of the products with W.
        native: whether the loop in C++ takes it.
    """

    cell: GatedCell
    columns: int
    reverse: bool
    compute_dtype: str
    native: bool


def gated_scan(
    cell: GatedCell,
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
    arguments = _masked(x, resets, lengths, reset_to)
    how = _how(cell, reverse, compute_dtype, x, W, state, arguments[1])
    h, last = _run_once(how, arguments[0], W, state, *arguments[1:])
    return masked(arguments[-1], h), last


def gated_steps(
    cell: GatedCell,
    x: Float[Array, "B T S"],
    W: Float[Array, "N M"],
    state: States,
    *,
    reverse: bool = False,
    resets: Bool[Array, "B T"] | None = None,
    lengths: Integer[Array, " B"] | None = None,
    reset_to: States | None = None,
    compute_dtype: str = "float32",
    forced: Mapping[str, Float[Array, "B T N"]] | None = None,
) -> tuple[tuple[Float[Array, "B T N"], ...], tuple[Float[Array, "B T N"], ...]]:
    """The states and the activations after each step; arguments as for `gated_scan`.

    Gates that are forced, by their names in the cell, have the values given instead of their own,
    except where those are NaN.
    """
    arguments = _masked(x, resets, lengths, reset_to)
    how = _how(cell, reverse, compute_dtype, x, W, state, arguments[1])
    # The loop in C++ forces nothing.
    how = how._replace(native=how.native and not forced)
    return _over_time_once(how, arguments[0], W, state, *arguments[1:], dict(forced or {}))[1:]


def _how(
    cell: GatedCell,
    reverse: bool,
    compute_dtype: str,
    x: Array,
    W: Array,
    state: States,
    fresh: States | None,
) -> How:
    # The loop in C++ has one type for all arrays and products, and resets to zero.
    types = {str(array.dtype) for array in (x, W, *state)}
    known = bool(cell.native) and compute_dtype == "float32" and fresh is None
    known = known and types in ({"float32"}, {"float64"})
    shape = (*x.shape[:2], W.shape[0])
    native = known and select("gated", shape, elements=W.size) == FUSED
    return How(cell, x.shape[2], reverse, compute_dtype, native)


def _masked(x: Array, resets: Array | None, lengths: Array | None, reset_to: Any) -> tuple:
    """The inputs without what the padding holds, fresh states, and where to keep and to step."""
    valid = valid_steps(x, step_counts(lengths, x.shape[1]))
    marked = marked_steps(x, resets, valid)
    if marked is None:
        return masked(valid, x), None, None, valid
    return masked(valid, x), reset_to, ~marked, valid


def _all_at(arrays: Arrays, t: Array) -> Arrays:
    return tuple(at_step(x, t) for x in arrays)


def _put(arrays: Arrays, values: Arrays, t: Array) -> Arrays:
    return tuple(put_step(x, value, t) for x, value in zip(arrays, values, strict=True))


def _select(valid: Array | None, new: Arrays, old: Arrays) -> Arrays:
    if valid is None:
        return new
    return tuple(jnp.where(valid[:, None], n, o) for n, o in zip(new, old, strict=True))


def _kept(keep: Array | None, states: Arrays, fresh: Arrays | None) -> Arrays:
    """The states where keep, else fresh ones."""
    if keep is None or fresh is None:
        return tuple(masked(keep, s) for s in states)
    return tuple(jnp.where(keep[..., None], s, new) for s, new in zip(states, fresh, strict=True))


def _over_time(
    how: How,
    x: Array,
    W: Array,
    first: Arrays,
    fresh: Arrays | None,
    keep: Array | None,
    valid: Array | None,
    forced: Mapping[str, Array] | None = None,
) -> tuple[Arrays, Arrays, Arrays]:
    """The last state, and the states and activations of all steps."""
    arguments = x, W, first, fresh, keep, valid
    plain = partial(_over_time_plain, how)
    if not how.native:
        return plain(*arguments, forced)

    def here(x: Array, W: Array, first: Arrays, fresh: None, keep: Any, valid: Any) -> tuple:
        states, activations = len(first), how.cell.activations
        over_time = jax.ShapeDtypeStruct((*x.shape[:2], W.shape[0]), x.dtype)
        results = cpu.call(
            "lru_gated_forward",
            tuple(_like(first)) + (over_time,) * (states + activations),
            *(x, W, cpu.mask(keep), cpu.mask(valid), *first),
            reverse=how.reverse,
            cell=how.cell.native,
        )
        return (
            tuple(results[:states]),
            tuple(results[states : 2 * states]),
            tuple(results[2 * states :]),
        )

    return on_cpu(here, plain, *arguments)


def _gate(forced: Mapping[str, Array], name: str, value: Array) -> Array:
    """The `Gate` of a step with the values that some gates are given."""
    given = forced.get(name, jnp.nan)
    return jnp.where(jnp.isnan(given), value, given)


def _over_time_plain(
    how: How,
    x: Array,
    W: Array,
    first: Arrays,
    fresh: Arrays | None,
    keep: Array | None,
    valid: Array | None,
    forced: Mapping[str, Array] | None = None,
) -> tuple[Arrays, Arrays, Arrays]:
    cell, columns, reverse, compute_dtype, _ = how
    unmixed, steps = columns - W.shape[1], x.shape[1]

    def step(i: Array, carry: tuple[Arrays, Arrays, Arrays]) -> tuple[Arrays, Arrays, Arrays]:
        state, states, activations = carry
        t = steps - 1 - i if reverse else i
        before = _kept(at_step(keep, t), state, fresh)
        mixed = multiply(before[0], W, compute_dtype)
        pre_activations = at_step(x, t) + jnp.pad(mixed, ((0, 0), (unmixed, 0)))
        at_t = {name: at_step(values, t) for name, values in (forced or {}).items()}
        gates = (partial(_gate, at_t),) if forced else ()
        active, state = cell.forward(pre_activations, before, *gates)
        state = _select(at_step(valid, t), state, before)
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
    return (over_time[0][0], last), (W, first, fresh, keep, valid, *over_time)


def _backward(how: How, saved: tuple, gradients: tuple[Array, Arrays]) -> tuple[Any, ...]:
    """The gradients of x, W, the first state and fresh ones, and of the masks none."""
    plain = partial(_gradients_plain, how)
    if not how.native:
        return *plain(saved, gradients), None, None

    def here(saved: tuple, gradients: tuple[Array, Arrays]) -> tuple:
        W, first, _, keep, valid, states, activations = saved
        dh, dlast = gradients
        dx = jax.ShapeDtypeStruct((*dh.shape[:2], how.columns), dh.dtype)
        arguments = (W, cpu.mask(keep), cpu.mask(valid), dh, *first, *states, *activations, *dlast)
        dx, dW, *dfirst = cpu.call(
            "lru_gated_backward",
            (dx, *_like((W, *first))),
            *arguments,
            reverse=how.reverse,
            cell=how.cell.native,
        )
        return dx, dW, tuple(dfirst), None

    return *on_cpu(here, plain, saved, gradients), None, None


def _like(arrays: Arrays) -> list[jax.ShapeDtypeStruct]:
    return [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in arrays]


def _gradients_plain(how: How, saved: tuple, gradients: tuple[Array, Arrays]) -> tuple[Any, ...]:
    cell, columns, reverse, compute_dtype, _ = how
    W, first, fresh, keep, valid, states, activations = saved
    dh, dlast = gradients
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
        d = (d[0] + at_step(dh, t), *d[1:])
        valid_t = at_step(valid, t)
        dx_t, through = cell.backward(
            _all_at(activations, t),
            _all_at(before, t),
            _all_at(states, t),
            tuple(masked(valid_t, g) for g in d),
        )
        through = (
            through[0] + multiply(dx_t[:, -width:], W_transposed, compute_dtype),
            *through[1:],
        )
        through, keep_t = _select(valid_t, through, d), at_step(keep, t)
        if keep_t is not None and dfresh is not None:
            dfresh = tuple(x + masked(~keep_t, g) for x, g in zip(dfresh, through, strict=True))
        return tuple(masked(keep_t, g) for g in through), _put(dx, (dx_t,), t), dfresh

    dfresh = None if fresh is None else tuple(jnp.zeros_like(s) for s in fresh)
    start = (dlast, (jnp.zeros((*dh.shape[:2], columns), dh.dtype),), dfresh)
    dfirst, (dx,), dfresh = lax.fori_loop(0, steps, step, start)
    dW = weight_gradient(before[0], dx[..., columns - width :], compute_dtype)
    return dx, dW, dfirst, dfresh


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
