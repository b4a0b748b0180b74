"""One pass over memory in each direction on GPUs and TPUs, in two methods.

The state is float32 and never leaves the chip between two steps; a and b are read in float32 or
bfloat16. Only rows and lanes run in parallel: below some 6,000 lanes B N `associative` is faster on
a GPU (docs/accelerators.md). Problems in float64 go to `associative`, second derivatives to
`sequential`. On a CPU the interpreter of Pallas stands in, which is slow and there to prove the
kernels. Batches that are split over devices need `jax.shard_map` around the scan
(`check_vma=False`).

On a GPU the kernels of `pallas` are compiled by Triton, which JAX has deprecated in Pallas and is
going to remove; where it is gone, the method is `associative`. Those of `mosaic` are the same for
CUDA devices alone, compiled by Mosaic GPU. On a TPU, where they have not been measured, the methods
are one, and XLA adds a pass between the scan and a matrix product, because their arrays are tiled
differently.
"""

import logging
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from lru.scan import associative, sequential
from lru.scan.methods import LINEAR_METHODS, takes_bfloat16, traced_once, with_derivatives_of
from lru.scan.pallas import launch

logger = logging.getLogger(__name__)


@cache
def has_triton() -> bool:
    """True if JAX has the compiler of `pallas` for GPUs; where it has not, that is said once."""
    if launch.GPU is None:
        logger.warning(
            "JAX %s has no Triton for Pallas: on GPUs the scan method 'pallas' is 'associative'",
            jax.__version__,
        )
    return launch.GPU is not None


@LINEAR_METHODS.register("pallas")
@takes_bfloat16
def linear(a: Array, b: Array, h0: Array, keep: Array | None, reverse: bool) -> Array:
    """Solve the linear problem of `lru.scan.methods`."""
    kernels = partial(_linear, "GPU", reverse)
    if has_triton():
        return kernels(a, b, h0, keep)
    without = partial(_in_parallel, reverse)
    return lax.platform_dependent(a, b, h0, keep, cuda=without, rocm=without, default=kernels)


@LINEAR_METHODS.register("mosaic")
@takes_bfloat16
def linear_by_mosaic(a: Array, b: Array, h0: Array, keep: Array | None, reverse: bool) -> Array:
    """Solve the linear problem of `lru.scan.methods`."""
    return _linear("MOSAIC", reverse, a, b, h0, keep)


def _linear(cuda: str, reverse: bool, a: Array, b: Array, h0: Array, keep: Array | None) -> Array:
    if h0.dtype != jnp.float32:
        return _in_parallel(reverse, a, b, h0, keep)
    return _once(a, b, h0, keep, reverse, cuda)


def _in_parallel(reverse: bool, a: Array, b: Array, h0: Array, keep: Array | None) -> Array:
    return associative.linear(a.astype(h0.dtype), b.astype(h0.dtype), h0, keep, reverse)


def _solve(a: Array, b: Array, h0: Array, keep: Array | None, reverse: bool, cuda: str) -> Array:
    def plain(a: Array, b: Array, h0: Array, keep: Array | None) -> Array:
        return sequential.solve(a.astype(h0.dtype), b.astype(h0.dtype), h0, keep, reverse)

    fast = partial(_on_platform, cuda, partial(launch.forward, reverse))
    return with_derivatives_of(plain, fast)(a, b, h0, keep)


def _forward(
    a: Array, b: Array, h0: Array, keep: Array | None, reverse: bool, cuda: str
) -> tuple[Array, tuple]:
    h = _solve(a, b, h0, keep, reverse, cuda)
    # Of b only its type is needed, and an empty array can be saved.
    return h, (b[:0], a, h, h0, keep)


def _backward(reverse: bool, cuda: str, saved: tuple, g: Array) -> tuple[Array | None, ...]:
    like_b, a, *others = saved

    def plain(a: Array, h: Array, h0: Array, keep: Array | None, g: Array) -> tuple:
        saved = (a.astype(h.dtype), h, h0, keep)
        da, db, dh0, _ = sequential.gradients(reverse, saved, g)
        return da.astype(a.dtype), db.astype(like_b.dtype), dh0

    def fast(a: Array, *others: Array | None) -> tuple:
        call = partial(launch.backward, reverse, like_b.dtype)
        da, db, dh0 = _on_platform(cuda, call, a, *others)
        return da.sum(0).astype(a.dtype) if a.ndim == 2 else da, db, dh0

    return *with_derivatives_of(plain, fast)(a, *others, g), None


_differentiable = jax.custom_vjp(_solve, nondiff_argnums=(4, 5))
_differentiable.defvjp(_forward, traced_once(_backward, static_argnums=(0, 1)))
_once = traced_once(_differentiable, static_argnums=(4, 5))


def _on_platform(cuda: str, call: Callable, *arrays: Array | None) -> Any:
    """`call(target, *arrays)` with the target that the program is lowered for.

    Args:
        cuda: name of the target of CUDA devices.
        call: a kernel.
        arrays: its arguments.
    """
    targets = {
        "cpu": launch.INTERPRETER,
        "tpu": launch.TPU,
        "cuda": getattr(launch, cuda),
        "rocm": launch.GPU,
    }
    calls = {name: partial(call, target) for name, target in targets.items() if target is not None}
    # With 64 bits enabled, indices of both widths would meet, which Mosaic refuses.
    with jax.enable_x64(False):
        return lax.platform_dependent(*arrays, **calls)
