"""Nonlinear recurrences of units by themselves, h_t = f(h_{t-1}, x_t) elementwise.

The steps run one after another. Their gradients do not: with l the gradient of h and J_t = df/dh of
all steps at once, l_{t-1} = g_{t-1} + J_t l_t is a linear scan, and one derivative of all steps
gives those of inputs and parameters. On a CPU a step that `lru.scan.cpu` knows runs there.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, Integer

from lru.scan import cpu
from lru.scan.linear import linear_scan
from lru.scan.methods import (
    at_step,
    masked,
    previous,
    put_step,
    step_counts,
    traced_once,
    valid_steps,
)
from lru.scan.native import on_cpu
from lru.scan.select import FUSED, select


class Step(NamedTuple):
    """One step of a recurrence.

    Attributes:
        run: from parameters, x_t [..., S] and h_{t-1} [..., N] to h_t, each unit of which reads no
            other of h_{t-1}; a function of a module, so that it is compiled once.
        native: its name in `cpu/elementwise.cc`, where its parameter is one vector [N]; empty if it
            is not there.
    """

    run: Callable[[Any, Array, Array], Array]
    native: str = ""


class How(NamedTuple):
    """All of a problem that is no array."""

    step: Step
    reverse: bool
    native: bool


def elementwise_scan(
    step: Step,
    parameters: Any,
    x: Float[Array, "B T S"],
    h0: Float[Array, "B N"],
    *,
    reverse: bool = False,
    resets: Bool[Array, "B T"] | None = None,
    lengths: Integer[Array, " B"] | None = None,
    reset_to: Float[Array, "B N"] | None = None,
) -> tuple[Float[Array, "B T N"], Float[Array, "B T N"], Float[Array, "B N"]]:
    """Run a recurrence over time.

    Differentiable in parameters, x, h0 and `reset_to`.

    Args:
        step: one step.
        parameters: tree of arrays that all steps share.
        x: inputs; at padding they may hold anything, NaN included.
        h0: state before the first step.
        reverse: run from the last step to the first.
        resets: [B, T] bool; a marked step starts from `reset_to`.
        lengths: [B] number of valid steps of right-padded rows; at padding a state stays as it is.
        reset_to: state [B, N] of a marked step; None is zero.

    Returns:
        The states after all steps, those before them, and that after the last valid one.
    """
    valid = valid_steps(x, step_counts(lengths, x.shape[1]))
    keep = None
    if resets is not None:
        keep = ~(resets if valid is None else resets & valid)
    fresh = None if keep is None else reset_to
    # The loop in C++ has one type for all arrays, and resets to zero.
    types = {str(array.dtype) for array in jax.tree.leaves((parameters, x, h0))}
    known = bool(step.native) and fresh is None and types in ({"float32"}, {"float64"})
    shape = (*x.shape[:2], h0.shape[1])
    how = How(step, reverse, known and select("elementwise", shape) == FUSED)
    h = _run_once(how, parameters, masked(valid, x), h0, fresh, keep, valid)
    return h, _before(reverse, h, h0, fresh, keep), h[:, 0 if reverse else -1]


def _before(reverse: bool, h: Array, h0: Array, fresh: Array | None, keep: Array | None) -> Array:
    """The states before all steps."""
    fresh = None if fresh is None else fresh[:, None]
    return masked(keep, previous(h, h0, reverse), 0 if fresh is None else fresh)


def _after(how: How, parameters: Any, x: Array, before: Array, valid: Array | None) -> Array:
    after = how.step.run(parameters, x, before)
    return masked(valid, after, before)


def _states(
    how: How, parameters: Any, x: Array, h0: Array, fresh: Any, keep: Any, valid: Any
) -> Array:
    steps = x.shape[1]

    def step(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        h, states = carry
        t = steps - 1 - i if how.reverse else i
        before = masked(at_step(keep, t), h, 0 if fresh is None else fresh)
        h = _after(how, parameters, at_step(x, t), before, at_step(valid, t))
        return h, put_step(states, h, t)

    room = jnp.zeros((*x.shape[:2], h0.shape[1]), h0.dtype)
    return lax.fori_loop(0, steps, step, (h0, room))[1]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _run(how: How, *arguments: Any) -> Array:
    plain = partial(_states, how)
    if not how.native:
        return plain(*arguments)

    def here(u: Array, x: Array, h0: Array, fresh: None, keep: Any, valid: Any) -> Array:
        h = jax.ShapeDtypeStruct((*x.shape[:2], h0.shape[1]), x.dtype)
        arrays = (x, u, h0, cpu.mask(keep), cpu.mask(valid))
        return cpu.call(
            "lru_elementwise_forward", h, *arrays, cell=how.step.native, reverse=how.reverse
        )

    return on_cpu(here, plain, *arguments)


def _forward(how: How, *arguments: Any) -> tuple[Any, tuple]:
    h = _run(how, *arguments)
    return h, (*arguments, h)


def _backward(how: How, saved: tuple, g: Array) -> tuple[Any, ...]:
    """The gradients of parameters, x, h0 and fresh states, and of the masks none."""
    plain = partial(_gradients, how)
    if not how.native:
        return *plain(*saved, g), None, None

    def here(u: Array, x: Array, h0: Array, fresh: None, keep: Any, valid: Any, *h: Array) -> tuple:
        arrays = (x, u, h0, cpu.mask(keep), cpu.mask(valid), *h)
        results = tuple(jax.ShapeDtypeStruct(like.shape, x.dtype) for like in (x, h0, h0))
        dx, du, dh0 = cpu.call(
            "lru_elementwise_backward",
            results,
            *arrays,
            cell=how.step.native,
            reverse=how.reverse,
        )
        return du.sum(0), dx, dh0, None

    return *on_cpu(here, plain, *saved, g), None, None


def _gradients(how: How, *arguments: Any) -> tuple[Any, ...]:
    parameters, x, h0, fresh, keep, valid, h, g = arguments
    before = _before(how.reverse, h, h0, fresh, keep)

    def over_time(parameters: Any, x: Array, before: Array) -> Array:
        return _after(how, parameters, x, before, valid)

    # Elementwise, so that the derivative along ones is the diagonal of the Jacobian.
    ones = jnp.ones_like(before)
    _, J = jax.jvp(partial(over_time, parameters, x), (before,), (ones,))
    later = previous(masked(keep, J), jnp.zeros_like(h0), not how.reverse)
    gradient, _ = linear_scan(later, g, reverse=not how.reverse, donate=True)
    dparameters, dx, dbefore = jax.vjp(over_time, parameters, x, before)[1](gradient)
    start = -1 if how.reverse else 0
    dh0 = masked(None if keep is None else keep[:, start], dbefore[:, start])
    dfresh = None if fresh is None or keep is None else masked(~keep, dbefore).sum(1)
    return dparameters, dx, dh0, dfresh


_run.defvjp(_forward, traced_once(_backward, static_argnums=0))
_run_once = traced_once(_run, static_argnums=0)
