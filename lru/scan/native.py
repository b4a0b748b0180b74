"""One pass over memory in each direction, on all cores of a CPU, by loops in C++ (`lru.scan.cpu`).

A loop that XLA compiles runs on one core and starts a kernel every step; these do neither. On
other platforms than a CPU `sequential` runs instead, as it does for second derivatives. The
compiler cannot cut a loop in C++: batches that are split over devices of a CPU are gathered on each
of them, unless `jax.shard_map` is around the scan (`check_vma=False`).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax import Array, lax

from lru.scan import cpu, parts, sequential
from lru.scan.methods import (
    COMPLEX_METHODS,
    DENSE_METHODS,
    DONATED,
    LINEAR_METHODS,
    Method,
    dense_gradients,
    differentiable,
    masked,
    with_derivatives_of,
)


def _like(x: Array, *shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape or x.shape, x.dtype)


def _gradient_of_start(product: Array, keep: Array | None, start: int) -> Array:
    return masked(None if keep is None else keep[:, start], product)


def on_cpu(here: Callable, elsewhere: Callable, *arrays: Any) -> Any:
    """`here(*arrays)` in a program for a CPU, else `elsewhere(*arrays)`, which is plain JAX."""
    fast = partial(lax.platform_dependent, cpu=here, default=elsewhere)
    return with_derivatives_of(elsewhere, fast)(*arrays)


def _linear(in_place: int | None) -> Method:
    """A method for the linear problem of `lru.scan.methods`.

    Args:
        in_place: 1 to write over b and over the gradient of h, which are copied first if they live
            on; None to leave them.
    """

    def solve(a: Array, b: Array, h0: Array, keep: Array | None, reverse: bool) -> Array:
        cpu.require("linear")

        def here(a: Array, b: Array, h0: Array, keep: Array | None) -> Array:
            paired = b.shape[-2] > 1
            if not paired:
                a, b, h0 = map(parts.only, (a, b, h0))
            arguments = (a, b, h0, cpu.mask(keep))
            h = cpu.call(
                "lru_linear_forward",
                _like(b),
                *arguments,
                in_place=in_place,
                paired=paired,
                reverse=reverse,
            )
            return h if paired else parts.alone(h)

        elsewhere = partial(sequential.solve, reverse=reverse)
        return on_cpu(here, elsewhere, a, b, h0, keep)

    def gradients(reverse: bool, saved: tuple, g: Array) -> tuple[Array | None, ...]:
        def here(a: Array, h: Array, h0: Array, keep: Array | None, g: Array) -> tuple:
            constant, paired, conj = a.ndim == 2, g.shape[-2] > 1, parts.conjugate(a)
            # XLA takes an argument of a program as it is, but copies one of another shape.
            if not paired:
                a, g, h, h0 = map(parts.only, (a, g, h, h0))
            results = (_like(g), _like(a, *(h.shape[:1] if constant else ()), *a.shape))
            arguments = (a, g, h, h0, cpu.mask(keep))
            found = cpu.call(
                "lru_linear_backward",
                results,
                *arguments,
                in_place=in_place,
                paired=paired,
                reverse=reverse,
            )
            db, da = found if paired else map(parts.alone, found)
            start = -1 if reverse else 0
            first = parts.multiply(conj if constant else conj[:, start], db[:, start])
            return da.sum(0) if constant else da, db, _gradient_of_start(first, keep, start)

        def elsewhere(*saved_and_g: Any) -> tuple:
            *before, g = saved_and_g
            return sequential.gradients(reverse, tuple(before), g)[:3]

        return *on_cpu(here, elsewhere, *saved, g), None

    return differentiable(solve, gradients)


def _solve_dense(A: Array, b: Array, h0: Array, keep: Array | None, reverse: bool) -> Array:
    """Solve the dense problem of `lru.scan.methods`."""
    cpu.require("dense")

    def here(A: Array, b: Array, h0: Array, keep: Array | None) -> Array:
        return cpu.call(
            "lru_dense_forward", _like(b), A, b, h0, cpu.mask(keep), in_place=1, reverse=reverse
        )

    elsewhere = partial(sequential.solve_dense, reverse=reverse)
    return on_cpu(here, elsewhere, A, b, h0, keep)


def _dense_gradients(reverse: bool, saved: tuple, g: Array) -> tuple[Array | None, ...]:
    def here(A: Array, h: Array, h0: Array, keep: Array | None, g: Array) -> tuple:
        results = (_like(g), _like(A))
        arguments = (A, g, h, h0, cpu.mask(keep))
        db, dA = cpu.call("lru_dense_backward", results, *arguments, in_place=1, reverse=reverse)
        start = -1 if reverse else 0
        return dA, db, _gradient_of_start(db[:, start] @ A, keep, start)

    def elsewhere(*saved_and_g: Any) -> tuple:
        rule = partial(dense_gradients, sequential.solve_dense)
        return rule(reverse, saved_and_g[:-1], saved_and_g[-1])[:3]

    return *on_cpu(here, elsewhere, *saved, g), None


plain = LINEAR_METHODS.register("native")(_linear(in_place=None))
DONATED[plain] = _linear(in_place=1)
COMPLEX_METHODS.update((plain, DONATED[plain]))
DENSE_METHODS.register("native")(differentiable(_solve_dense, _dense_gradients))
