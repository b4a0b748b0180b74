"""The oracle: h_t = a_t h_{t-1} + b_t as the definition says, one step after another.

Every method must agree with these functions, whose gradients are plain autodiff.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Inexact, Integer

from lru.scan.elementwise import Step
from lru.scan.gated import GatedCell, States


def linear_scan(
    a: Inexact[Array, " N"] | Inexact[Array, "B T N"],
    b: Inexact[Array, "B T N"],
    h0: Inexact[Array, "B N"] | None = None,
    *,
    reverse: bool = False,
    resets: Bool[Array, "B T"] | None = None,
    lengths: Integer[Array, " B"] | None = None,
    reset_to: Inexact[Array, "B N"] | None = None,
) -> tuple[Inexact[Array, "B T N"], Inexact[Array, "B N"]]:
    """Solve h_t = a_t * h_{t-1} + b_t; arguments and results as in `lru.scan.linear_scan`."""
    varying = jnp.broadcast_to(a, b.shape)
    return _loop(lambda a_t, h: a_t * h, varying, a, b, h0, reverse, resets, lengths, reset_to)


def dense_scan(
    A: Inexact[Array, "N N"],
    b: Inexact[Array, "B T N"],
    h0: Inexact[Array, "B N"] | None = None,
    *,
    reverse: bool = False,
    resets: Bool[Array, "B T"] | None = None,
    lengths: Integer[Array, " B"] | None = None,
    reset_to: Inexact[Array, "B N"] | None = None,
) -> tuple[Inexact[Array, "B T N"], Inexact[Array, "B N"]]:
    """Solve h_t = A h_{t-1} + b_t; arguments and results as in `lru.scan.dense_scan`."""
    return _loop(lambda _, h: h @ A.T, b, A, b, h0, reverse, resets, lengths, reset_to)


def gated_scan(
    cell: GatedCell,
    x: Float[Array, "B T S"],
    W: Float[Array, "N M"],
    state: States,
    *,
    resets: Bool[Array, "B T"] | None = None,
    lengths: Integer[Array, " B"] | None = None,
    reverse: bool = False,
    reset_to: States | None = None,
) -> tuple[Float[Array, "B T N"], States]:
    """Solve s_t = cell(x_t + h_{t-1} W, s_{t-1}); arguments and results as in `lru.scan`."""
    rows, steps, width = x.shape
    marked = jnp.zeros((rows, steps), bool) if resets is None else resets
    valid = jnp.arange(steps) < (jnp.full(rows, steps) if lengths is None else lengths)[:, None]
    fresh = tuple(map(jnp.zeros_like, state)) if reset_to is None else reset_to

    def step(state: States, at_t: tuple[Array, ...]) -> tuple[States, Array]:
        x_t, marked_t, valid_t = (a.reshape(rows, -1) for a in at_t)
        before = tuple(jnp.where(marked_t, *pair) for pair in zip(fresh, state, strict=True))
        pre_activations = jnp.where(valid_t, x_t, 0).at[:, width - W.shape[1] :].add(before[0] @ W)
        after = cell.forward(pre_activations, before)[1]
        state = tuple(jnp.where(valid_t, new, old) for new, old in zip(after, state, strict=True))
        return state, jnp.where(valid_t, state[0], 0)

    over_time = tuple(jnp.moveaxis(a, 1, 0) for a in (x, marked, valid))
    last, h = jax.lax.scan(step, state, over_time, reverse=reverse)
    return jnp.moveaxis(h, 0, 1), last


def elementwise_scan(
    step: Step,
    parameters: Any,
    x: Float[Array, "B T S"],
    h0: Float[Array, "B N"],
    *,
    resets: Bool[Array, "B T"] | None = None,
    lengths: Integer[Array, " B"] | None = None,
    reverse: bool = False,
    reset_to: Float[Array, "B N"] | None = None,
) -> tuple[Float[Array, "B T N"], Float[Array, "B T N"], Float[Array, "B N"]]:
    """Solve h_t = f(h_{t-1}, x_t); arguments and results as in `lru.scan.elementwise_scan`."""
    rows, steps = x.shape[:2]
    marked = jnp.zeros((rows, steps), bool) if resets is None else resets
    valid = jnp.arange(steps) < (jnp.full(rows, steps) if lengths is None else lengths)[:, None]
    fresh = jnp.zeros_like(h0) if reset_to is None else reset_to

    def one(h: Array, at_t: tuple[Array, ...]) -> tuple[Array, tuple[Array, Array]]:
        x_t, marked_t, valid_t = (a.reshape(rows, -1) for a in at_t)
        before = jnp.where(marked_t & valid_t, fresh, h)
        h = jnp.where(valid_t, step.run(parameters, jnp.where(valid_t, x_t, 0), before), before)
        return h, (h, before)

    over_time = tuple(jnp.moveaxis(a, 1, 0) for a in (x, marked, valid))
    last, (h, before) = jax.lax.scan(one, h0, over_time, reverse=reverse)
    return jnp.moveaxis(h, 0, 1), jnp.moveaxis(before, 0, 1), last


def pooled_scan(
    x: Float[Array, "B T M"],
    bias: Float[Array, " M"] | None,
    c0: Float[Array, "B N"],
    *,
    gates: str,
    zoneout: Float[Array, "B T N"] | float = 0.0,
    resets: Bool[Array, "B T"] | None = None,
    lengths: Integer[Array, " B"] | None = None,
    reverse: bool = False,
    reset_to: Float[Array, "B N"] | None = None,
) -> tuple[Float[Array, "B T N"], Float[Array, "B N"]]:
    """Mix candidates into states; arguments and results as in `lru.scan`."""
    z, f, *others = jnp.split(x if bias is None else x + bias, x.shape[-1] // c0.shape[-1], -1)
    keep = jax.nn.sigmoid(f)
    update = jax.nn.sigmoid(others[1]) if gates == "ifo" else 1 - keep
    keep, update = zoneout + (1 - zoneout) * keep, (1 - zoneout) * update
    options = {"reverse": reverse, "resets": resets, "lengths": lengths, "reset_to": reset_to}
    c, last = linear_scan(keep, update * jnp.tanh(z), c0, **options)
    return (jax.nn.sigmoid(others[0]) * c if others else c), last


def _loop(
    apply: Callable[[Array, Array], Array],
    varying: Array,
    a: Array,
    b: Array,
    h0: Array | None,
    reverse: bool,
    resets: Array | None,
    lengths: Array | None,
    reset_to: Array | None,
) -> tuple[Array, Array]:
    rows, steps, _ = b.shape
    arguments = (a, b) if h0 is None else (a, b, h0)
    dtype = jnp.result_type(*arguments, jnp.float32)
    h = jnp.zeros_like(b[:, 0], dtype) if h0 is None else h0.astype(dtype)
    marked = jnp.zeros((rows, steps), bool) if resets is None else resets
    valid = jnp.arange(steps) < (jnp.full(rows, steps) if lengths is None else lengths)[:, None]

    def step(h: Array, at_t: tuple[Array, ...]) -> tuple[Array, Array]:
        a_t, b_t, marked_t, valid_t = at_t
        a_t, b_t = (jnp.where(valid_t[:, None], x, 0).astype(dtype) for x in (a_t, b_t))
        afresh = 0 if reset_to is None else apply(a_t, reset_to.astype(dtype))
        new = jnp.where(marked_t[:, None], afresh, apply(a_t, h)) + b_t
        return jnp.where(valid_t[:, None], new, h), jnp.where(valid_t[:, None], new, 0)

    over_time = [jnp.moveaxis(x, 1, 0) for x in (varying, b, marked, valid)]
    h_last, h = jax.lax.scan(step, h, tuple(over_time), reverse=reverse)
    return jnp.moveaxis(h, 0, 1), h_last
