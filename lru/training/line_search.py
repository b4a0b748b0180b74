"""A line search for the strong Wolfe conditions.

Nocedal and Wright, Numerical Optimization, 2nd edition, algorithms 3.5 and 3.6, with the bounds and
exits of `torch.optim.LBFGS`. `n` is the number of all parameters.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

ARMIJO, CURVATURE = 1e-4, 0.9  # c1 and c2 of the conditions
MIN_BRACKET = 1e-9  # brackets of shorter steps, in their largest entry, are not divided

# In full precision, which matrix units would not use of themselves.
dot = partial(jnp.dot, precision=lax.Precision.HIGHEST)


class Point(NamedTuple):
    """A point of the line x + t d; a bracket is two of them, stacked."""

    t: jax.Array
    loss: jax.Array
    grad: jax.Array
    slope: jax.Array


class _Search(NamedTuple):
    """A line search before its next evaluation, which is at `t`.

    Until `zooming`, the first point of the bracket is the one before the last.
    """

    t: jax.Array
    bracket: Point
    low: jax.Array
    zooming: jax.Array
    insufficient: jax.Array
    done: jax.Array
    evals: jax.Array


def strong_wolfe(
    evaluate: Callable[[jax.Array], Point],
    here: Point,
    t: jax.Array,
    skip: jax.Array,
    max_iter: jax.Array,
    size: jax.Array,
) -> tuple[Point, jax.Array]:
    """A point of the line with the strong Wolfe conditions, or the best of the last bracket.

    Args:
        evaluate: the point at a step.
        here: where the line starts.
        t: first step.
        skip: return `here` at once.
        max_iter: evaluations after the first.
        size: largest entry of the direction, in size.

    Returns:
        The point, and how often was evaluated.
    """

    def bracket(search: _Search, new: Point, ended: jax.Array, worse: jax.Array) -> _Search:
        """Phase 1 (algorithm 3.5): go on until the last two points have a good one between."""
        before = _at(search.bracket, 0)
        worse |= (search.evals > 1) & (new.loss >= before.loss)
        good = ~worse & flat(new)
        zooming = worse | (~good & (new.slope >= 0))
        first = _select(ended, here, _select(zooming, before, new))
        pair = jax.tree.map(lambda *points: jnp.stack(points), first, new)
        bounds = new.t + 0.01 * (new.t - before.t), 10 * new.t
        return search._replace(
            t=_cubic_minimum(before, new, *bounds),
            bracket=pair,
            low=_lower(pair),
            zooming=zooming,
            done=ended | good,
        )

    def zoom(search: _Search, new: Point, ended: jax.Array, worse: jax.Array) -> _Search:
        """Phase 2 (algorithm 3.6): put the new point in place of one end of the bracket."""
        low, high = _at(search.bracket, search.low), _at(search.bracket, 1 - search.low)
        worse |= new.loss >= low.loss
        good = ~worse & flat(new)
        turned = new.slope * (high.t - low.t) >= 0
        high, low = _select(worse, new, _select(turned, low, high)), _select(worse, low, new)
        first = search.low == 0
        pair = jax.tree.map(
            lambda a, b: jnp.where(first, jnp.stack([a, b]), jnp.stack([b, a])), low, high
        )
        return search._replace(
            bracket=pair, low=jnp.where(worse, _lower(pair), search.low), done=ended | good
        )

    def flat(point: Point) -> jax.Array:
        return jnp.abs(point.slope) <= -CURVATURE * here.slope

    def advance(search: _Search) -> _Search:
        new = evaluate(search.t)
        ended = search.evals >= max_iter
        worse = new.loss > here.loss + ARMIJO * new.t * here.slope
        search = lax.cond(search.zooming, zoom, bracket, search, new, ended, worse)
        search = search._replace(evals=search.evals + 1)
        t, insufficient = _divide(search)
        narrow = jnp.abs(search.bracket.t[1] - search.bracket.t[0]) * size < MIN_BRACKET
        return search._replace(
            t=jnp.where(search.zooming, t, search.t),
            insufficient=search.zooming & insufficient,
            done=search.done | (search.zooming & narrow),
        )

    false = jnp.zeros((), bool)
    search = _Search(
        t=t,
        bracket=jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), here),
        low=jnp.int32(0),
        zooming=false,
        insufficient=false,
        done=skip,
        evals=jnp.int32(0),
    )
    search = lax.while_loop(lambda search: ~search.done, advance, search)
    return _at(search.bracket, search.low), search.evals


def _divide(search: _Search) -> tuple[jax.Array, jax.Array]:
    """The next step within a bracket, and whether it was left although it is near an end.

    The second time in a row it is moved from the end by a tenth of the width, and at once if it
    is not inside.
    """
    first, last = _at(search.bracket, 0), _at(search.bracket, 1)
    smallest, largest = jnp.minimum(first.t, last.t), jnp.maximum(first.t, last.t)
    t = _cubic_minimum(first, last, smallest, largest)
    margin = 0.1 * (largest - smallest)
    near = jnp.minimum(largest - t, t - smallest) < margin
    shift = near & (search.insufficient | (t >= largest) | (t <= smallest))
    inside = jnp.where(
        jnp.abs(t - largest) < jnp.abs(t - smallest), largest - margin, smallest + margin
    )
    return jnp.where(shift, inside, t), near & ~shift


def _cubic_minimum(a: Point, b: Point, smallest: jax.Array, largest: jax.Array) -> jax.Array:
    """The minimum of the cubic through two points and their slopes (equation 3.59), clipped.

    The middle of the bounds where the cubic has none.
    """
    a, b = _select(a.t <= b.t, a, b), _select(a.t <= b.t, b, a)
    d1 = a.slope + b.slope - 3 * (a.loss - b.loss) / (a.t - b.t)
    square = d1**2 - a.slope * b.slope
    d2 = jnp.sqrt(jnp.maximum(square, 0))
    t = b.t - (b.t - a.t) * ((b.slope + d2 - d1) / (b.slope - a.slope + 2 * d2))
    return jnp.where(square >= 0, jnp.clip(t, smallest, largest), (smallest + largest) / 2)


def _lower(pair: Point) -> jax.Array:
    """The place of the smaller loss."""
    return jnp.where(pair.loss[0] <= pair.loss[1], 0, 1).astype(jnp.int32)


def _at(pair: Point, place: jax.typing.ArrayLike) -> Point:
    return jax.tree.map(lambda leaf: leaf[place], pair)


def _select(condition: jax.Array, a: Point, b: Point) -> Point:
    return jax.tree.map(partial(jnp.where, condition), a, b)
