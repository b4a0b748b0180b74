"""The oracle: h_t = a_t h_{t-1} + b_t as the definition says, one step after another.

Every method must agree with these functions, whose gradients are plain autodiff.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Inexact, Integer

from lru.scan.gated import GatedCell, States
from lru.scan.mlstm import EPSILON, Memory
from lru.scan.nonlinear import Recurrence, Report


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


def block_scan(
    a: Float[Array, "2 2 N"] | Float[Array, "B T 2 2 N"],
    b: Float[Array, "B T 2 N"],
    h0: Float[Array, "B 2 N"] | None = None,
    *,
    reverse: bool = False,
    resets: Bool[Array, "B T"] | None = None,
    lengths: Integer[Array, " B"] | None = None,
    reset_to: Float[Array, "B 2 N"] | None = None,
) -> tuple[Float[Array, "B T 2 N"], Float[Array, "B 2 N"]]:
    """Solve h_t = a_t h_{t-1} + b_t for pairs; arguments and results as in `lru.scan`."""
    rows, steps, _, width = b.shape
    varying = jnp.broadcast_to(a, (rows, steps, 2, 2, width)).reshape(rows, steps, 4 * width)

    def apply(a_t: Array, h: Array) -> Array:
        a_t, h = a_t.reshape(-1, 2, 2, width), h.reshape(-1, 2, width)
        return jnp.einsum("bijn,bjn->bin", a_t, h).reshape(rows, 2 * width)

    flat = [x if x is None else x.reshape(rows, -1) for x in (h0, reset_to)]
    b = b.reshape(rows, steps, 2 * width)
    h, last = _loop(apply, varying, a, b, flat[0], reverse, resets, lengths, flat[1])
    return h.reshape(rows, steps, 2, width), last.reshape(rows, 2, width)


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
    unmixed = x.shape[2] - W.shape[1]

    def advance(before: States, at_t: tuple[Array, ...]) -> tuple[States, Array]:
        _, after = cell.forward(at_t[0].at[:, unmixed:].add(before[0] @ W), before)
        return after, after[0]

    return _steps(advance, (x,), tuple(state), reverse, resets, lengths, reset_to)


def nonlinear_scan(
    recurrence: Recurrence,
    parameters: Any,
    x: Float[Array, "B T S"],
    state: Float[Array, "B P N"],
    *,
    resets: Bool[Array, "B T"] | None = None,
    lengths: Integer[Array, " B"] | None = None,
    reverse: bool = False,
    reset_to: Float[Array, "B P N"] | None = None,
) -> tuple[Float[Array, "B T P N"], Float[Array, "B P N"], Report]:
    """Solve s_t = f(s_{t-1}, x_t); arguments and results as in `lru.scan`."""
    rows, steps = x.shape[:2]
    marked = jnp.zeros((rows, steps), bool) if resets is None else resets
    valid = jnp.arange(steps) < (jnp.full(rows, steps) if lengths is None else lengths)[:, None]
    fresh = jnp.zeros_like(state) if reset_to is None else reset_to

    def step(state: Array, at_t: tuple[Array, ...]) -> tuple[Array, Array]:
        x_t, marked_t, valid_t = at_t
        before = jnp.where((marked_t & valid_t)[:, None, None], fresh, state)
        after = recurrence.step(parameters, jnp.where(valid_t[:, None], x_t, 0), before)
        state = jnp.where(valid_t[:, None, None], after, before)
        return state, state

    over_time = tuple(jnp.moveaxis(a, 1, 0) for a in (x, marked, valid))
    last, states = jax.lax.scan(step, state, over_time, reverse=reverse)
    report = Report(jnp.int32(0), jnp.zeros((rows, steps, state.shape[2])), jnp.bool_(True))
    return jnp.moveaxis(states, 0, 1), last, report


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


def delta_scan(
    q: Float[Array, "B T H P"],
    k: Float[Array, "B T H P"],
    v: Float[Array, "B T H Q"],
    beta: Float[Array, "B T H"] | Float[Array, "B T H Q"],
    S0: Float[Array, "B H P Q"],
    *,
    log_decay: Float[Array, "B T H"] | None = None,
    reverse: bool = False,
    resets: Bool[Array, "B T"] | None = None,
    lengths: Integer[Array, " B"] | None = None,
    reset_to: Float[Array, "B H P Q"] | None = None,
) -> tuple[Float[Array, "B T H Q"], Float[Array, "B H P Q"]]:
    """Run the delta rule; arguments and results as in `lru.scan`."""
    beta = jnp.broadcast_to(beta.reshape(*beta.shape[:3], -1), v.shape)
    decay = jnp.zeros(v.shape[:3], v.dtype) if log_decay is None else log_decay

    def advance(S: Array, at_t: tuple[Array, ...]) -> tuple[Array, Array]:
        q, k, v, beta, decay = at_t
        S = jnp.exp(decay)[..., None, None] * S
        u = beta * (v - jnp.einsum("bhpq,bhp->bhq", S, k))
        S = S + k[..., None] * u[..., None, :]
        return S, jnp.einsum("bhpq,bhp->bhq", S, q) / jnp.sqrt(q.shape[-1])

    return _steps(advance, (q, k, v, beta, decay), S0, reverse, resets, lengths, reset_to)


def mlstm_scan(
    q: Float[Array, "B T H P"],
    k: Float[Array, "B T H P"],
    v: Float[Array, "B T H Q"],
    i: Float[Array, "B T H"],
    f: Float[Array, "B T H"],
    state: Memory,
    *,
    reverse: bool = False,
    resets: Bool[Array, "B T"] | None = None,
    lengths: Integer[Array, " B"] | None = None,
    reset_to: Memory | None = None,
) -> tuple[Float[Array, "B T H Q"], Memory]:
    """Run the memory of an mLSTM; arguments and results as in `lru.scan`."""

    def advance(state: Memory, at_t: tuple[Array, ...]) -> tuple[Memory, Array]:
        (C, n, m), (q, k, v, i, f) = state, at_t
        log_f = jax.nn.log_sigmoid(f)
        before, m = m, jnp.maximum(log_f + m, i)
        keep, take = jnp.exp(log_f + before - m), jnp.exp(i - m) / jnp.sqrt(q.shape[-1])
        n = keep[..., None] * n + take[..., None] * k
        keep, take = (x[..., None, None] for x in (keep, take))
        C = keep * C + take * k[..., None] * v[..., None, :]
        size = jnp.maximum(jnp.abs(jnp.sum(n * q, -1)), jnp.exp(-m)) + EPSILON
        return (C, n, m), jnp.einsum("bhpq,bhp->bhq", C, q) / size[..., None]

    return _steps(advance, (q, k, v, i, f), state, reverse, resets, lengths, reset_to)


def selective_scan(
    u: Float[Array, "B T N"],
    dt: Float[Array, "B T N"],
    A: Float[Array, "M N"],
    B: Float[Array, "B T G M"],
    C: Float[Array, "B T G M"],
    h0: Float[Array, "B M N"],
    *,
    reverse: bool = False,
    resets: Bool[Array, "B T"] | None = None,
    lengths: Integer[Array, " B"] | None = None,
    reset_to: Float[Array, "B M N"] | None = None,
) -> tuple[Float[Array, "B T N"], Float[Array, "B M N"]]:
    """Run a selective scan; arguments and results as in `lru.scan`."""
    B, C = (jnp.repeat(x.mT, A.shape[1] // x.shape[2], axis=3) for x in (B, C))

    def advance(h: Array, at_t: tuple[Array, ...]) -> tuple[Array, Array]:
        u, dt, B, C = at_t
        h = jnp.exp(dt[:, None] * A) * h + (dt * u)[:, None] * B
        return h, jnp.sum(h * C, axis=1)

    return _steps(advance, (u, dt, B, C), h0, reverse, resets, lengths, reset_to)


def ssd_scan(
    x: Float[Array, "B T H P"],
    log_decay: Float[Array, "B T H"],
    B: Float[Array, "B T G M"],
    C: Float[Array, "B T G M"],
    S0: Float[Array, "B H M P"],
    *,
    reverse: bool = False,
    resets: Bool[Array, "B T"] | None = None,
    lengths: Integer[Array, " B"] | None = None,
    reset_to: Float[Array, "B H M P"] | None = None,
) -> tuple[Float[Array, "B T H P"], Float[Array, "B H M P"]]:
    """Run the scan of Mamba-2; arguments and results as in `lru.scan`."""
    B, C = (jnp.repeat(z, x.shape[2] // z.shape[2], axis=2) for z in (B, C))

    def advance(S: Array, at_t: tuple[Array, ...]) -> tuple[Array, Array]:
        x, log_decay, B, C = at_t
        S = jnp.exp(log_decay)[..., None, None] * S + B[..., None] * x[..., None, :]
        return S, jnp.einsum("bhmp,bhm->bhp", S, C)

    return _steps(advance, (x, log_decay, B, C), S0, reverse, resets, lengths, reset_to)


def _steps(
    advance: Callable[[Any, tuple[Array, ...]], tuple[Any, Array]],
    arrays: tuple[Array, ...],
    state: Any,
    reverse: bool,
    resets: Array | None,
    lengths: Array | None,
    reset_to: Any,
) -> tuple[Array, Any]:
    """A step on every input [B, H, ...] in turn, for states of any tree."""
    rows, steps = arrays[0].shape[:2]
    marked = jnp.zeros((rows, steps), bool) if resets is None else resets
    valid = jnp.arange(steps) < (jnp.full(rows, steps) if lengths is None else lengths)[:, None]
    fresh = jax.tree.map(jnp.zeros_like, state) if reset_to is None else reset_to

    def choose(where: Array, new: Any, old: Any) -> Any:
        def chosen(new: Array, old: Array) -> Array:
            return jnp.where(where.reshape(-1, *[1] * (new.ndim - 1)), new, old)

        return jax.tree.map(chosen, new, old)

    def step(state: Any, at_t: tuple) -> tuple[Any, Array]:
        x_t, marked_t, valid_t = at_t
        x_t = choose(valid_t, x_t, jax.tree.map(jnp.zeros_like, x_t))
        after, y = advance(choose(marked_t, fresh, state), x_t)
        return choose(valid_t, after, state), choose(valid_t, y, jnp.zeros_like(y))

    over_time = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), (arrays, marked, valid))
    last, y = jax.lax.scan(step, state, over_time, reverse=reverse)
    return jnp.moveaxis(y, 0, 1), last


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
