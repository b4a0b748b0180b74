"""One step after another: the least memory traffic, and the fastest form on a CPU.

The loops write each result over the input that it came from (h over b, the gradient of b over
that of h) and hand the state on by itself: then the compiler updates in place and each step is a
few passes over cached rows.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array, lax

from lru.scan import parts
from lru.scan.methods import (
    DENSE_METHODS,
    LINEAR_METHODS,
    Product,
    at_step,
    differentiable,
    differentiable_dense,
    masked,
    put_step,
)


def solve_dense(A: Array, b: Array, h0: Array, keep: Array | None, reverse: bool) -> Array:
    """Solve the dense problem of `lru.scan.methods`."""
    # Outside the loop: inside, every step would read the rows of A as columns, slowly on a CPU.
    A_transposed = A.T
    return _loop(lambda _, h: h @ A_transposed, b, h0, keep, reverse)


DENSE_METHODS.register("sequential")(differentiable_dense(solve_dense))


def solve(a: Array, b: Array, h0: Array, keep: Array | None, reverse: bool) -> Array:
    """Solve the linear problem of `lru.scan.methods`."""
    return loop(parts.multiply, a, b, h0, keep, reverse)


def loop(
    multiply: Product, a: Array, b: Array, h0: Array, keep: Array | None, reverse: bool
) -> Array:
    """Solve the linear problem of `lru.scan.methods` with another product a h."""
    constant = a.ndim == 2
    return _loop(lambda t, h: multiply(a if constant else at_step(a, t), h), b, h0, keep, reverse)


def _loop(multiply: Callable, b: Array, h0: Array, keep: Array | None, reverse: bool) -> Array:
    last = b.shape[1] - 1

    def step(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        h, out = carry
        t = last - i if reverse else i
        h = masked(at_step(keep, t), multiply(t, h)) + at_step(out, t)
        return h, put_step(out, h, t)

    return lax.fori_loop(0, last + 1, step, (h0, b))[1]


def gradients(reverse: bool, saved: tuple, g: Array) -> tuple[Array, Array, Array, None]:
    """One loop against the scan makes the gradient of b and, beside it, collects that of a."""
    a, h, h0, keep = saved
    constant, parts_of_a = a.ndim == 2, a.shape[-2]
    last = h.shape[1] - 1

    def step(t: Array | int, before: Array, db_t: Array, da: list[Array]) -> tuple:
        """Take in step t: what it adds to the gradient of a, and the gradient of its h_{t-1}."""
        keep_t = at_step(keep, t)
        terms = [masked(keep_t, x) for x in parts.correlate(db_t, before, parts_of_a)]
        if constant:
            da = [total + term for total, term in zip(da, terms, strict=True)]
        else:
            da = [put_step(da[0], parts.collect(terms, parts_of_a, a.dtype), t)]
        conj = parts.conjugate(a if constant else at_step(a, t))
        return masked(keep_t, parts.multiply(conj, db_t)), da

    def step_inside(i: Array, carry: tuple[Array, Array, list]) -> tuple[Array, Array, list]:
        db_t, db, da = carry
        t, t_before = (i, i + 1) if reverse else (last - i, last - i - 1)
        through, da = step(t, at_step(h, t_before), db_t, da)
        db_t = through + at_step(db, t_before)
        return db_t, put_step(db, db_t, t_before), da

    start, end = (last, 0) if reverse else (0, last)
    da = [jnp.zeros_like(h0)] * min(parts_of_a, 2) if constant else [jnp.zeros_like(a)]
    db_start, db, da = lax.fori_loop(0, last, step_inside, (g[:, end], g, da))
    dh0, da = step(start, h0, db_start, da)
    if not constant:
        return da[0], db, dh0, None
    return parts.collect([x.sum(0) for x in da], parts_of_a, a.dtype), db, dh0, None


LINEAR_METHODS.register("sequential")(differentiable(solve, gradients))
