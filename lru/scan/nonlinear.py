"""Nonlinear recurrences s_t = f(s_{t-1}, x_t): one step after another, or all at once by Newton.

States are arrays [B, T, P, N]: P fields of N units, as h and c of an LSTM. Whatever computes them,
gradients are those of the steps: with l the gradient of s, l_{t-1} = g_{t-1} + J_t^T l_t is a
linear recurrence, solved as one where no unit reads another, and one more derivative of all steps
at once gives those of inputs and parameters. Where Newton's method does not converge, in either
direction, the steps run one after another in the same program.
"""

from functools import partial
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, Integer

from lru.scan import elementwise, newton
from lru.scan.gated import GatedCell
from lru.scan.methods import (
    at_step,
    masked,
    put_step,
    states_before,
    step_counts,
    traced_once,
    valid_steps,
)
from lru.scan.native import on_cpu
from lru.scan.portability import is_portable
from lru.scan.products import matrix, multiply

TimeMethod = Literal["sequential", "newton", "quasi_newton"]


@runtime_checkable
class Recurrence(Protocol):
    """A step on arrays with any axes of rows in front, hashed by what it does.

    Attributes:
        elementwise: whether no unit reads another; then `quasi_newton` is `newton`.
    """

    elementwise: bool

    def step(
        self, parameters: Any, x: Float[Array, "*rows S"], before: Float[Array, "*rows P N"], /
    ) -> Float[Array, "*rows P N"]:
        """The state after a step."""
        ...

    def units(
        self,
        parameters: Any,
        x: Float[Array, "*rows S"],
        own: Float[Array, "*rows P N"],
        others: Float[Array, "*rows P N"],
        /,
    ) -> Float[Array, "*rows P N"]:
        """The step where both states are one, in which a unit reads of the second all but itself.

        Its derivative in the first is the part of that of the step that `quasi_newton` takes.
        """
        ...


class Report(NamedTuple):
    """Account of one call.

    Attributes:
        iterations: of Newton's method; 0 of a sequential scan.
        residual: largest |s_t - f(s_{t-1}, x_t)| over the fields of a unit, of the last iterate.
        converged: True if that is of the size of rounding, or nothing was iterated. If not, the
            states that were returned are those of the sequential scan.
    """

    iterations: Integer[Array, ""]
    residual: Float[Array, "B T N"]
    converged: Bool[Array, ""]


class How(NamedTuple):
    """All of a problem that is no array; `native` is the name of its loop in C++, if it has one."""

    recurrence: Recurrence
    method: TimeMethod
    reverse: bool
    limit: int
    damping: float
    native: str


def nonlinear_scan(
    recurrence: Recurrence,
    parameters: Any,
    x: Float[Array, "B T S"],
    state: Float[Array, "B P N"],
    *,
    method: TimeMethod = "sequential",
    limit: int = 100,
    damping: float = 0.0,
    reverse: bool = False,
    resets: Bool[Array, "B T"] | None = None,
    lengths: Integer[Array, " B"] | None = None,
    reset_to: Float[Array, "B P N"] | None = None,
) -> tuple[Float[Array, "B T P N"], Float[Array, "B P N"], Report]:
    """Run a recurrence over time.

    Differentiable once, backwards, in parameters, x, the state and `reset_to`.

    Args:
        recurrence: one step.
        parameters: tree of arrays that all steps share.
        x: inputs; at padding they may hold anything, NaN included.
        state: before the first step.
        method: sequential; newton, with whole Jacobians, T (P N)^2 numbers for each row; or
            quasi_newton, with those of each unit in itself. A portable program is sequential.
        limit: most iterations in each direction.
        damping: share of the Jacobian that forward iterations leave out, in [0, 1]: more of them,
            which diverge less.
        reverse: run from the last step to the first.
        resets: a marked step starts from `reset_to`.
        lengths: number of valid steps of right-padded rows; at padding a state stays as it is.
        reset_to: state of a marked step; None is zeros.

    Returns:
        The states after all steps, that after the last valid one, and a report.
    """
    valid = valid_steps(x, step_counts(lengths, x.shape[1]))
    keep = resets
    if resets is not None:
        keep = ~(resets if valid is None else resets & valid)
    if is_portable() or x.shape[1] == 1:
        method = "sequential"
    fresh = None if keep is None else reset_to
    native = ""
    if method == "sequential":
        native = elementwise.known_cell(recurrence, parameters, x, state, fresh)
    how = How(recurrence, method, reverse, limit, damping, native)
    states, report = _run_once(how, parameters, masked(valid, x), state, fresh, keep, valid)
    return states, states[:, 0 if reverse else -1], report


def _step(how: How, parameters: Any, x: Array, before: Array, valid: Array | None) -> Array:
    after = how.recurrence.step(parameters, x, before)
    return masked(valid, after, before)


def _sequential(
    how: How, parameters: Any, x: Array, first: Array, fresh: Any, keep: Any, valid: Any
) -> Array:
    steps = x.shape[1]

    def step(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        state, states = carry
        t = steps - 1 - i if how.reverse else i
        before = masked(at_step(keep, t), state, 0 if fresh is None else fresh)
        state = _step(how, parameters, at_step(x, t), before, at_step(valid, t))
        return state, put_step(states, state, t)

    room = lax.empty((*x.shape[:2], *first.shape[1:]), first.dtype)
    return lax.fori_loop(0, steps, step, (first, room))[1]


def _blocks(how: How, parameters: Any, x: Array, before: Array, keep: Any, valid: Any) -> Array:
    """Derivatives of all steps in the states before them, as much of them as the method takes."""
    recurrence = how.recurrence
    if how.method == "newton" and not recurrence.elementwise:
        J = newton.dense_blocks(partial(recurrence.step, parameters, x), before)
    else:
        J = newton.unit_blocks(lambda own: recurrence.units(parameters, x, own, before), before)
    if valid is not None:
        same = jnp.eye(J.shape[2], dtype=J.dtype)[..., None]
        J = jnp.where(valid[..., None, None, None], J, same)
    return masked(keep, J)


def _unless(converged: Array, value: Array, sequential: Any) -> Array:
    """The value if it has converged, else another.

    A loop of one round at most, which no lane enters under `vmap` unless one has to; a condition
    would become a selection between both.
    """

    def go(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        return jnp.ones_like(converged), sequential()

    return lax.while_loop(lambda carry: ~carry[0], go, (converged, value))[1]


def _forward(
    how: How, parameters: Any, x: Array, first: Array, fresh: Any, keep: Any, valid: Any
) -> tuple[tuple[Array, Report], tuple]:
    def before(states: Array) -> Array:
        return states_before(states, first, how.reverse, keep, fresh)

    def target(states: Array) -> Array:
        return _step(how, parameters, x, before(states), valid)

    def blocks(states: Array) -> Array:
        J = _blocks(how, parameters, x, before(states), keep, valid)
        return (1 - how.damping) * J

    def sequential() -> Array:
        return _sequential(how, parameters, x, first, fresh, keep, valid)

    over_time = (*x.shape[:2], *first.shape[1:])
    if how.method == "sequential":
        native = partial(elementwise.states, how.native, how.reverse)
        arguments = (parameters, x, first, fresh, keep, valid)
        plain = partial(_sequential, how)
        states = on_cpu(native, plain, *arguments) if how.native else plain(*arguments)
        nothing = jnp.zeros((*x.shape[:2], first.shape[2]), first.dtype)
        report = Report(jnp.int32(0), nothing, jnp.bool_(True))
    else:
        start = target(jnp.zeros(over_time, first.dtype))
        found = newton.iterate(
            target,
            blocks,
            lambda states: jnp.maximum(1, jnp.abs(states)),
            start,
            reverse=how.reverse,
            limit=how.limit,
        )
        states = _unless(found.converged, found.value, sequential)
        residual = jnp.max(jnp.abs(found.residual), axis=2)
        report = Report(found.iterations, residual, found.converged)
    return (states, report), (parameters, x, states, first, fresh, keep, valid)


def _backward(how: How, saved: tuple, gradients: tuple[Array, Any]) -> tuple[Any, ...]:
    """The gradients of parameters, x, the first state and fresh ones, and of the masks none."""
    plain = partial(_gradients, how)
    native = partial(elementwise.gradients, how.native, how.reverse)
    arguments = (*saved, gradients[0])
    found = on_cpu(native, plain, *arguments) if how.native else plain(*arguments)
    return *found, None, None


def _gradients(how: How, *arguments: Any) -> tuple[Any, ...]:
    *saved, g = arguments
    parameters, x, states, first, fresh, keep, valid = saved

    def over_time(parameters: Any, x: Array, states: Array, first: Array, fresh: Any) -> Array:
        before = states_before(states, first, how.reverse, keep, fresh)
        return _step(how, parameters, x, before, valid)

    _, pull = jax.vjp(over_time, parameters, x, states, first, fresh)

    def sequential() -> Array:
        return _sequential_gradient(how, tuple(saved), g)

    def transposed() -> Array:
        before = states_before(states, first, how.reverse, keep, fresh)
        return newton.transposed(_blocks(how, parameters, x, before, keep, valid), how.reverse)

    if how.method == "sequential":
        at_once = how.recurrence.elementwise
        gradient = (
            newton.linear_blocks(transposed(), g, not how.reverse) if at_once else sequential()
        )
    else:
        J = transposed()
        found = newton.iterate(
            lambda gradient: g + pull(gradient)[2],
            lambda _: J,
            # Rows may weigh differently; and most of a gradient comes from the steps of its row.
            lambda gradient: jnp.max(jnp.abs(gradient), axis=(1, 2, 3), keepdims=True),
            jnp.zeros_like(g),
            reverse=not how.reverse,
            limit=how.limit,
        )
        gradient = _unless(found.converged, found.value, sequential)
    dparameters, dx, _, dfirst, dfresh = pull(gradient)
    return dparameters, dx, dfirst, dfresh


def _sequential_gradient(how: How, saved: tuple, g: Array) -> Array:
    """The gradients of all states, from the last step to the first."""
    parameters, x, states, first, fresh, keep, valid = saved
    before = states_before(states, first, how.reverse, keep, fresh)
    steps = x.shape[1]

    def step(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        d, gradient = carry
        t = i if how.reverse else steps - 1 - i
        d = d + at_step(g, t)
        _, pull = jax.vjp(
            lambda before: _step(how, parameters, at_step(x, t), before, at_step(valid, t)),
            at_step(before, t),
        )
        return masked(at_step(keep, t), pull(d)[0]), put_step(gradient, d, t)

    # Not over g: the compiler would copy all of it at every step.
    return lax.fori_loop(0, steps, step, (jnp.zeros_like(first), lax.empty(g.shape, g.dtype)))[1]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _run(
    how: How, parameters: Any, x: Array, first: Array, fresh: Any, keep: Any, valid: Any
) -> tuple[Array, Report]:
    return _forward(how, parameters, x, first, fresh, keep, valid)[0]


_run.defvjp(_forward, traced_once(_backward, static_argnums=0))
_run_once = traced_once(_run, static_argnums=0)


class GatedRecurrence(NamedTuple):
    """The recurrence of `gated_scan`, s_t = cell(x_t + h_{t-1} W, s_{t-1}); its parameter is W.

    Attributes:
        cell: one step.
        compute_dtype: of the products with W.
    """

    cell: GatedCell
    compute_dtype: str = "float32"
    elementwise = False

    def step(
        self, W: Float[Array, "N M"], x: Float[Array, "*rows S"], before: Float[Array, "*rows P N"]
    ) -> Float[Array, "*rows P N"]:
        """See `Recurrence.step`."""
        return self._mixed(x, multiply(before[..., 0, :], W, self.compute_dtype), before)

    def units(
        self,
        W: Float[Array, "N M"],
        x: Float[Array, "*rows S"],
        own: Float[Array, "*rows P N"],
        others: Float[Array, "*rows P N"],
    ) -> Float[Array, "*rows P N"]:
        """See `Recurrence.units`."""
        gates = W.shape[1] // W.shape[0]
        diagonals = jnp.diagonal(W.reshape(-1, gates, W.shape[0]), axis1=0, axis2=2).reshape(-1)
        h = others[..., 0, :]
        change = jnp.tile(own[..., 0, :] - h, gates) * diagonals
        return self._mixed(x, multiply(h, W, self.compute_dtype) + change, own)

    def _mixed(self, x: Array, mixed: Array, before: Array) -> Array:
        room = [(0, 0)] * (x.ndim - 1) + [(x.shape[-1] - mixed.shape[-1], 0)]
        fields = tuple(matrix(before[..., i, :]) for i in range(before.shape[-2]))
        _, after = self.cell.forward(matrix(x + jnp.pad(mixed, room)), fields)
        return jnp.stack(after, axis=1).reshape(before.shape)
