"""Calls of the kernels on Mosaic GPU: each lane is a thread, which goes through all of time.

A program is a warpgroup: 128 lanes beside each other, whose numbers are whole lines of memory. The
last one of a row overlaps the one before where N is no multiple of 128, and both write the same
there; rows of fewer lanes are filled up.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu

from lru.scan.pallas.tiling import Index, Parts, Program, Ref, Tiling

# Nothing is read that the kernel itself has written.
PARAMS = mosaic_gpu.CompilerParams(unsafe_no_auto_barriers=True)


class RowProgram(Program):
    """View of a kernel on the lanes of a program over all of time."""

    def __init__(self, tiling: Tiling, zero: Array):
        self.tiling, self.zero = tiling, zero
        self.k, self.count, self.mask = 0, tiling.length, None

    def zeros(self, ref: Ref) -> Parts:
        """Parts that lie in registers as those that are read do, which loops need."""
        return [self.zero] * ref.shape[-2]

    def flag(self, ref: Ref | None, t: Index) -> Array | None:
        """The same for each lane, as it takes no single number to choose between registers."""
        return None if ref is None else jnp.broadcast_to(ref[0, t], self.zero.shape) != 0


def call(
    kernel: Callable,
    tiling: Tiling,
    arrays: Sequence[Array | None],
    outputs: Sequence[jax.ShapeDtypeStruct],
    **options: Any,
) -> list[Array]:
    """Run a kernel of a program and refs to arrays, in this order, and outputs.

    Arrays are [B, T, P, N], [B, P, N] or [P, N], flags [B, 1, T] integers.
    """
    width, lanes = tiling.width, tiling.lanes
    tiling = replace(tiling, width=max(width, lanes))
    fill = partial(_filled, tiling.width - width)

    # Under `jax.vmap` it is traced anew, after the call.
    @jax.enable_x64(False)
    def run(zero: Ref, *refs: Ref) -> None:
        row, start = lax.axis_index("row"), lax.axis_index("lanes") * lanes
        beside = pl.ds(lax.min(start, tiling.width - lanes), lanes)

        def view(ref: Ref) -> Ref:
            if _are_flags(ref):
                return ref.at[row]
            return ref.at[*(row, slice(None))[: len(ref.shape) - 2], :, beside]

        views = map(view, refs)
        given = [None if x is None else next(views) for x in arrays]
        kernel(RowProgram(tiling, zero[...]), *given, *views)

    results = mosaic_gpu.kernel(
        run,
        out_type=[jax.eval_shape(fill, x) for x in outputs],
        grid=tiling.grid[:2],
        grid_names=("row", "lanes"),
        compiler_params=PARAMS,
        kernel_name=f"linear_scan_{kernel.__name__}",
        **options,
    )(jnp.zeros((1, lanes)), *(fill(x) for x in arrays if x is not None))
    return [x[..., :width] for x in results]


def _are_flags(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jnp.integer)


def _filled(missing: int, x: Array) -> Array:
    """An array with more lanes."""
    if _are_flags(x) or not missing:
        return x
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, missing)])
