"""L-BFGS: several quasi-Newton steps an update, each evaluating the same batch again.

    d = -H g,    x <- x + t d,    s = t d,    y = g(x + s) - g(x)

with H from the last pairs (s, y): the two loops of Nocedal and Wright, Numerical Optimization,
2nd edition, algorithms 7.4 and 7.5. Exits and options are those of `torch.optim.LBFGS`. `n` is
the number of all parameters, raveled to one vector.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.flatten_util import ravel_pytree

from lru.registry import UnknownNameError, known_names
from lru.training.clipping import check_clip_norm, clip_by_norm
from lru.training.line_search import Point, dot, strong_wolfe

LINE_SEARCHES = ("none", "strong_wolfe")
MIN_CURVATURE = 1e-10  # pairs with no more y.s are not stored


class LBFGSState(NamedTuple):
    """State from one update to the next, named as in `torch.optim.LBFGS`.

    Attributes:
        n_iter: iterations of all updates, int32.
        func_evals: evaluations of loss and gradient in all updates, int32; the given one counts.
        d: last direction `[n]`.
        t: step along it that was taken.
        old_dirs: differences y of gradients `[history_size, n]`, a ring.
        old_stps: the steps s that made them `[history_size, n]`.
        ro: 1 / y.s of each pair `[history_size]`.
        n_pairs: pairs stored so far, int32; the next goes to `n_pairs % history_size`.
        H_diag: y.s / y.y of the last pair, the scale of the first H.
        prev_flat_grad: gradient from which the last step was taken `[n]`.
        prev_loss: loss there.
    """

    n_iter: jax.Array
    func_evals: jax.Array
    d: jax.Array
    t: jax.Array
    old_dirs: jax.Array
    old_stps: jax.Array
    ro: jax.Array
    n_pairs: jax.Array
    H_diag: jax.Array
    prev_flat_grad: jax.Array
    prev_loss: jax.Array


class _Loop(NamedTuple):
    """Iterations of one update: the point `x [n]`, what is known there, and counts."""

    x: jax.Array
    loss: jax.Array
    grad: jax.Array
    iterations: jax.Array
    evals: jax.Array
    running: jax.Array
    state: LBFGSState


def lbfgs(
    *,
    max_iter: int = 20,
    max_eval: int | None = None,
    tolerance_grad: float = 1e-7,
    tolerance_change: float = 1e-9,
    history_size: int = 100,
    line_search: str = "none",
    clip_norm: float | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Makes the transformation that takes the steps of `torch.optim.LBFGS`.

    Its `update(grads, state, params, *, value, value_and_grad, rate)` returns the change of
    `params` over all iterations, and the next state. `value` and `grads` are those at `params`;
    `value_and_grad` gives both at other parameters, on the same batch; `rate` is the learning
    rate, a number or a scalar array. All run under `jit` and `vmap`. Parameters are any tree of
    float32 or float64 arrays, and the state follows their type; it holds
    `2 * history_size + 2` times their memory.

    Args:
        max_iter: iterations an update.
        max_eval: evaluations an update, the given one included, after which no iteration starts;
            None for a quarter more than `max_iter`, rounded down.
        tolerance_grad: largest entry of the gradient, in size, at which an update ends.
        tolerance_change: slope, step or change of the loss below which an update ends.
        history_size: pairs kept.
        line_search: "none" moves by the rate, in the first iteration of all by the rate times
            min(1, 1 / |g|_1); "strong_wolfe" starts there, then brackets and zooms by cubic
            interpolation until the strong Wolfe conditions hold or `max_eval` is reached.
        clip_norm: norm to which every gradient is clipped before anything else is done with it, as
            in a closure of PyTorch that clips; None does not.

    Raises:
        ValueError: if a count is less than 1, a tolerance negative or not finite, or `clip_norm`
            not positive; from `init`, if there are no parameters or some are neither float32 nor
            float64; from `update`, if the state is of other parameters.
        UnknownNameError: if there is no such line search.
    """
    if max_eval is None:
        max_eval = max_iter * 5 // 4
    counts = {"max_iter": max_iter, "max_eval": max_eval, "history_size": history_size}
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")
    tolerances = {"tolerance_grad": tolerance_grad, "tolerance_change": tolerance_change}
    for name, tolerance in tolerances.items():
        if not 0 <= tolerance < math.inf:
            raise ValueError(f"{name} must be at least 0 and finite, got {tolerance}")
    check_clip_norm(clip_norm)
    if line_search not in LINE_SEARCHES:
        known = known_names(line_search, LINE_SEARCHES)
        raise UnknownNameError(f"unknown line search {line_search!r}; {known}")

    def init(params: optax.Params) -> LBFGSState:
        for leaf in jax.tree.leaves(params):
            dtype = jnp.result_type(leaf)
            if dtype not in (jnp.float32, jnp.float64):
                raise ValueError(f"params must be float32 or float64, got {dtype}")
        flat, _ = ravel_pytree(params)
        if not flat.size:
            raise ValueError("params must hold at least one number, got none")
        # Each field has a buffer of its own, so that all can be donated.
        scalar, count = partial(jnp.zeros, (), flat.dtype), partial(jnp.zeros, (), jnp.int32)
        pairs = partial(jnp.zeros, (history_size, flat.size), flat.dtype)
        return LBFGSState(
            n_iter=count(),
            func_evals=count(),
            d=jnp.zeros_like(flat),
            t=scalar(),
            old_dirs=pairs(),
            old_stps=pairs(),
            ro=jnp.zeros(history_size, flat.dtype),
            n_pairs=count(),
            H_diag=jnp.ones_like(flat, shape=()),
            prev_flat_grad=jnp.zeros_like(flat),
            prev_loss=scalar(),
        )

    def update(
        grads: optax.Updates,
        state: Any,
        params: Any,
        *,
        value: jax.typing.ArrayLike,
        value_and_grad: Callable[[Any], tuple[jax.typing.ArrayLike, Any]],
        rate: jax.typing.ArrayLike,
        **extra: Any,
    ) -> tuple[optax.Updates, LBFGSState]:
        del extra  # meant for other links of a chain
        start, unravel = ravel_pytree(params)
        if (state.d.shape, state.d.dtype) != (start.shape, start.dtype):
            raise ValueError(
                f"state must be that of the {start.size} parameters in {start.dtype}, "
                f"but is of {state.d.size} in {state.d.dtype}"
            )
        rate = jnp.asarray(rate, start.dtype)

        def flat(gradient: Any) -> jax.Array:
            return clip_by_norm(ravel_pytree(gradient)[0], clip_norm)

        def evaluate(x: jax.Array) -> tuple[jax.Array, jax.Array]:
            loss, gradient = value_and_grad(unravel(x))
            return jnp.asarray(loss, x.dtype), flat(gradient)

        def optimal(grad: jax.Array) -> jax.Array:
            return jnp.abs(grad).max() <= tolerance_grad

        def move(loop: _Loop, d: jax.Array, t: jax.Array, stuck: jax.Array) -> tuple:
            """Step, loss and gradient after it, and evaluations, without a line search."""
            # In the last iteration nothing reads them: the next update has another batch.
            needed = ~stuck & (loop.iterations + 1 < max_iter)
            known = loop.loss, loop.grad
            loss, grad = lax.cond(needed, evaluate, lambda x: known, loop.x + t * d)
            return t, loss, grad, needed.astype(jnp.int32)

        def search(loop: _Loop, d: jax.Array, t: jax.Array, stuck: jax.Array) -> tuple:
            def point(t: jax.Array) -> Point:
                loss, grad = evaluate(loop.x + t * d)
                return Point(t, loss, grad, dot(grad, d))

            here = Point(jnp.zeros_like(t), loop.loss, loop.grad, dot(loop.grad, d))
            size = jnp.abs(d).max()
            found, evals = strong_wolfe(point, here, t, stuck, max_eval - loop.evals, size)
            return jnp.where(stuck, t, found.t), found.loss, found.grad, evals

        def iterate(loop: _Loop) -> _Loop:
            state = _remember(loop.state, loop.grad)
            d = _direction(state, loop.grad)
            first = state.n_iter == 0
            t = jnp.where(first, jnp.minimum(1, 1 / jnp.abs(loop.grad).sum()), 1) * rate
            stuck = dot(loop.grad, d) > -tolerance_change
            step = search if line_search == "strong_wolfe" else move
            t, loss, grad, evals = step(loop, d, t, stuck)
            iterations, evals_so_far = loop.iterations + 1, loop.evals + evals
            stop = (
                stuck
                | (iterations == max_iter)
                | (evals_so_far >= max_eval)
                | optimal(grad)
                | (jnp.abs(t * d).max() <= tolerance_change)
                | (jnp.abs(loss - loop.loss) < tolerance_change)
            )
            state = state._replace(
                n_iter=state.n_iter + 1,
                func_evals=state.func_evals + evals,
                d=d,
                t=t,
                prev_flat_grad=loop.grad,
                prev_loss=loop.loss,
            )
            x = jnp.where(stuck, loop.x, loop.x + t * d)
            return _Loop(x, loss, grad, iterations, evals_so_far, ~stop, state)

        grad = flat(grads)
        loop = _Loop(
            x=start,
            loss=jnp.asarray(value, start.dtype),
            grad=grad,
            iterations=jnp.int32(0),
            evals=jnp.int32(1),
            running=~optimal(grad),
            state=state._replace(func_evals=state.func_evals + 1),
        )
        loop = lax.while_loop(lambda loop: loop.running, iterate, loop)
        return unravel(loop.x - start), loop.state

    # The type that optax gives the field knows no further arguments.
    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]


def _remember(state: LBFGSState, grad: jax.Array) -> LBFGSState:
    """The pair of the last step in place of the oldest, if the curvature along it is positive."""
    y, s = grad - state.prev_flat_grad, state.t * state.d
    ys = dot(y, s)
    # Before the first step of all s is zero, and nothing is stored.
    keep, slot = ys > MIN_CURVATURE, state.n_pairs % len(state.ro)

    def put(ring: jax.Array, new: jax.Array) -> jax.Array:
        return ring.at[slot].set(jnp.where(keep, new, ring[slot]))

    return state._replace(
        old_dirs=put(state.old_dirs, y),
        old_stps=put(state.old_stps, s),
        ro=put(state.ro, 1 / ys),
        n_pairs=state.n_pairs + keep,
        H_diag=jnp.where(keep, ys / dot(y, y), state.H_diag),
    )


def _direction(state: LBFGSState, grad: jax.Array) -> jax.Array:
    """The direction -H g `[n]` (algorithm 7.4)."""
    size = len(state.ro)
    n_pairs = jnp.minimum(state.n_pairs, size)

    def newest_first(i: jax.Array, carry: tuple) -> tuple:
        q, alphas = carry
        j = (state.n_pairs - 1 - i) % size
        alpha = dot(state.old_stps[j], q) * state.ro[j]
        return q - alpha * state.old_dirs[j], alphas.at[j].set(alpha)

    def oldest_first(i: jax.Array, r: jax.Array) -> jax.Array:
        j = (state.n_pairs - n_pairs + i) % size
        beta = dot(state.old_dirs[j], r) * state.ro[j]
        return r + (alphas[j] - beta) * state.old_stps[j]

    q, alphas = lax.fori_loop(0, n_pairs, newest_first, (-grad, jnp.zeros_like(state.ro)))
    return lax.fori_loop(0, n_pairs, oldest_first, q * state.H_diag)
