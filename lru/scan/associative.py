"""All steps at once in log2(T) rounds: for processors with many more lanes than B N.

Two neighbouring steps h -> a_1 h + b_1 and h -> a_2 h + b_2 are one step of the same form,
h -> a_2 a_1 h + (a_2 b_1 + b_2). With a constant a (or A) a round needs one power of it only, so
nothing of size [T, N] is made from it. A varying a goes through `jax.lax.associative_scan`.
Powers may overflow where states are zero: their products with zeros are zero. In a dense problem
that holds for a state that is zero as a whole.
Blelloch 1990, "Prefix sums and their applications", section 1.4.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from lru.scan import parts
from lru.scan.methods import (
    DENSE_METHODS,
    LINEAR_METHODS,
    Product,
    differentiable_dense,
    differentiable_linear,
    masked,
)


@LINEAR_METHODS.register("associative")
@differentiable_linear
def linear(a: Array, b: Array, h0: Array, keep: Array | None, reverse: bool) -> Array:
    """Solve the linear problem of `lru.scan.methods`."""
    start = -1 if reverse else 0
    first = parts.multiply(a if a.ndim == 2 else a[:, start], h0)
    b = _enter(first, b, keep, start)
    if a.ndim == 2:
        solve = partial(_constant, parts.multiply, _product, a)
        return _directed(solve, b, keep, reverse)
    return _varying(a, b, keep, reverse)


@DENSE_METHODS.register("associative")
@differentiable_dense
def dense(A: Array, b: Array, h0: Array, keep: Array | None, reverse: bool) -> Array:
    """Solve the dense problem of `lru.scan.methods`."""
    b = _enter(h0 @ A.T, b, keep, -1 if reverse else 0)
    solve = partial(_constant, _matvec, _product_with_matrix, A.T)
    return _directed(solve, b, keep, reverse)


def _matvec(A_transposed: Array, h: Array) -> Array:
    return h @ A_transposed


def _product(a: Array, h: Array) -> Array:
    """The product a h for an a that is a product of many."""
    if h.shape[-2] == 4:
        return parts.by_column(_product, a, h)
    nothing = (h == 0) & (h[..., ::-1, :] == 0)
    return jnp.where(nothing, 0, parts.multiply(a, h))


def _product_with_matrix(A_transposed: Array, h: Array) -> Array:
    nothing = jnp.all(h == 0, axis=-1, keepdims=True)
    return jnp.where(nothing, 0, _matvec(A_transposed, h))


def _enter(state: Array, b: Array, keep: Array | None, start: int) -> Array:
    return b.at[:, start].add(masked(None if keep is None else keep[:, start], state))


def _directed(solve: Callable, b: Array, keep: Array | None, reverse: bool) -> Array:
    if not reverse:
        return solve(b, keep)
    return jnp.flip(solve(jnp.flip(b, 1), None if keep is None else jnp.flip(keep, 1)), 1)


def _constant(
    multiply: Product, of_powers: Product, a: Array, b: Array, keep: Array | None
) -> Array:
    """Steps 1, 3, 5... from pairs of steps with a^2, then steps 2, 4, 6... from those."""
    steps = b.shape[1]
    if steps == 1:
        return b

    def advance(h: Array, steps: slice) -> Array:
        return masked(None if keep is None else keep[:, steps], multiply(a, h)) + b[:, steps]

    pairs = advance(b[:, 0:-1:2], slice(1, None, 2))
    keep_pairs = None if keep is None else keep[:, 0:-1:2] & keep[:, 1::2]
    odd = _constant(of_powers, of_powers, of_powers(a, a), pairs, keep_pairs)
    even = advance(odd[:, : (steps - 1) // 2], slice(2, None, 2))
    return _interleave(jnp.concatenate([b[:, :1], even], axis=1), odd)


def _interleave(even: Array, odd: Array) -> Array:
    shorter = even.shape[1] - odd.shape[1]
    odd_padded = jnp.concatenate([odd, even[:, :shorter]], axis=1)
    both = jnp.stack([even, odd_padded], axis=2)
    both = both.reshape(both.shape[0], -1, *both.shape[3:])
    return both[:, : even.shape[1] + odd.shape[1]]


def _varying(a: Array, b: Array, keep: Array | None, reverse: bool) -> Array:
    def combine(first: tuple, second: tuple) -> tuple:
        (a_1, b_1, keep_1), (a_2, b_2, keep_2) = first, second
        keep_both = None if keep is None else keep_1 & keep_2
        both = masked(keep_2, _product(a_2, b_1)) + b_2
        return _product(a_2, a_1), both, keep_both

    return jax.lax.associative_scan(combine, (a, b, keep), reverse=reverse, axis=1)[1]
