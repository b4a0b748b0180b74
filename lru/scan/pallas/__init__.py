"""One pass over memory in each direction on GPUs (by Triton) and TPUs (by Mosaic).

The state is float32 and never leaves the chip between two steps; a and b are read in float32 or
bfloat16. Only rows and lanes run in parallel: below some 6,000 lanes B N `associative` is faster on
a GPU (docs/performance.md). Problems in float64 go to `associative`, second derivatives to
`sequential`. On a CPU the interpreter of
Pallas stands in, which is slow and there to prove the kernels. Batches that are split over devices
need `jax.shard_map` around the scan (`check_vma=False`).

On a TPU, where they have not been measured, XLA adds a pass between the scan and a matrix product,
because their arrays are tiled differently.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from lru.scan import associative, sequential
from lru.scan.methods import LINEAR_METHODS, takes_bfloat16, traced_once, with_derivatives_of
from lru.scan.pallas import launch


@LINEAR_METHODS.register("pallas")
@takes_bfloat16
def linear(a: Array, b: Array, h0: Array, keep: Array | None, reverse: bool) -> Array:
    """Solve the linear problem of `lru.scan.methods`."""
    solve = _once if h0.dtype == jnp.float32 else associative.linear
    return solve(a, b, h0, keep, reverse)


def _solve(a: Array, b: Array, h0: Array, keep: Array | None, reverse: bool) -> Array:
    def plain(a: Array, b: Array, h0: Array, keep: Array | None) -> Array:
        return sequential.solve(a.astype(h0.dtype), b.astype(h0.dtype), h0, keep, reverse)

    fast = partial(_on_platform, partial(launch.forward, reverse))
    return with_derivatives_of(plain, fast)(a, b, h0, keep)


def _forward(
    a: Array, b: Array, h0: Array, keep: Array | None, reverse: bool
) -> tuple[Array, tuple]:
    h = _solve(a, b, h0, keep, reverse)
    # Of b only its type is needed, and an empty array can be saved.
    return h, (b[:0], a, h, h0, keep)


def _backward(reverse: bool, saved: tuple, g: Array) -> tuple[Array | None, ...]:
    like_b, a, *others = saved

    def plain(a: Array, h: Array, h0: Array, keep: Array | None, g: Array) -> tuple:
        saved = (a.astype(h.dtype), h, h0, keep)
        da, db, dh0, _ = sequential.gradients(reverse, saved, g)
        return da.astype(a.dtype), db.astype(like_b.dtype), dh0

    def fast(a: Array, *others: Array | None) -> tuple:
        call = partial(launch.backward, reverse, like_b.dtype)
        da, db, dh0 = _on_platform(call, a, *others)
        return da.sum(0).astype(a.dtype) if a.ndim == 2 else da, db, dh0

    return *with_derivatives_of(plain, fast)(a, *others, g), None


_differentiable = jax.custom_vjp(_solve, nondiff_argnums=(4,))
_differentiable.defvjp(_forward, traced_once(_backward, static_argnums=0))
_once = traced_once(_differentiable, static_argnums=4)


def _on_platform(call: Callable, *arrays: Array | None) -> Any:
    """`call(target, *arrays)` with the target that the program is lowered for."""
    gpu = partial(call, launch.GPU)
    # With 64 bits enabled, indices of both widths would meet, which Mosaic refuses.
    with jax.enable_x64(False):
        return lax.platform_dependent(
            *arrays,
            cpu=partial(call, launch.INTERPRETER),
            tpu=partial(call, launch.TPU),
            cuda=gpu,
            rocm=gpu,
        )
