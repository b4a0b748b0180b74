"""Calls of the kernels: blocks, grid and compiler for each platform.

Rows and lanes run in parallel, time does not. A program on a GPU reads memory itself, so one goes
through all of time with its state in registers. On a TPU blocks of time are copied to and from fast
memory while the kernel works on others, and the state waits there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu

from lru.scan.pallas import kernels
from lru.scan.pallas.tiling import Program, Tiling, triton


@dataclass(frozen=True)
class Target:
    """Description of what runs a kernel.

    Attributes:
        options: arguments of `pallas_call`, or of a kernel of Mosaic GPU, that choose and set the
            compiler.
        lanes: the most lanes in a block.
        ahead: the most numbers of a lane that are read before the first is needed.
        steps: the most steps in a block; None for all.
        masked: whether a block is always of `lanes` lanes, and kernels skip those beyond N.
        scalars: the memory that single numbers are read from, if it is another one.
        views: whether programs take views of whole arrays, on Mosaic GPU, in place of blocks.
    """

    options: Mapping[str, Any]
    lanes: int
    ahead: int
    steps: int | None = None
    masked: bool = False
    scalars: Any = None
    views: bool = False


# A program is one warp, a lane one thread: B N is small beside the threads of a GPU, so programs
# are as small, and as many, as whole lines of memory allow. Memory answers hundreds of cycles after
# a load, a step computes for about ten: each thread has 32 loads under way, which with addresses
# and results stays below 100 registers, so that 20 programs fit a multiprocessor.
# Parameters name the compiler: the default one has changed between releases of JAX.
GPU = triton and Target(
    {"compiler_params": triton.CompilerParams(num_warps=1)}, lanes=32, ahead=32, masked=True
)

# The smallest program of Mosaic is a warpgroup; as on Triton, each thread has 32 loads under way.
MOSAIC = Target({}, lanes=128, ahead=32, views=True)

# One register holds 1024 lanes of one part. With 128 steps a block is up to 1 MiB, enough to copy
# at full speed, and the two copies each of at most five arrays fit the 16 MiB a kernel may use. A
# step is a chain of three operations; reading ahead keeps loads out of it.
TPU = Target(
    {
        "compiler_params": tpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary")
        )
    },
    lanes=1024,
    ahead=16,
    steps=128,
    scalars=tpu.SMEM,
)

# Small, so that tests meet the edges of blocks.
INTERPRETER = Target({"interpret": True}, lanes=8, ahead=1, steps=4)


def forward(
    reverse: bool, target: Target, a: Array, b: Array, h0: Array, keep: Array | None
) -> Array:
    """Solve the linear problem of `lru.scan.methods`; a and b may be bfloat16."""
    tiling = _tiling(target, reverse, a, b)
    outputs = [jax.ShapeDtypeStruct(x.shape, h0.dtype) for x in (b, h0)]
    arrays = {"a": a, "b": b, "h0": h0, "keep": keep}
    h, _ = _call(kernels.forward, target, tiling, arrays, outputs)
    return h


def backward(
    reverse: bool,
    dtype: jax.typing.DTypeLike,
    target: Target,
    a: Array,
    h: Array,
    h0: Array,
    keep: Array | None,
    g: Array,
) -> tuple[Array, Array, Array]:
    """The gradients of a, b (in dtype) and h0, given g, that of h.

    Of a constant a, they are those of each row: [B, Q, N] in the type of h.
    """
    tiling = _tiling(target, not reverse, a, h, g)
    of_a = (a.shape, a.dtype) if a.ndim == 4 else ((tiling.rows, *a.shape), h.dtype)
    outputs = [jax.ShapeDtypeStruct(*x) for x in (of_a, (g.shape, dtype), (h0.shape, h0.dtype))]
    beyond = h if tiling.blocks > 1 else None
    arrays = {"a": a, "h": h, "beyond": beyond, "h0": h0, "keep": keep, "g": g}
    da, db, dh0 = _call(kernels.backward, target, tiling, arrays, outputs)
    return da, db, dh0


def _call(
    kernel: Callable,
    target: Target,
    tiling: Tiling,
    arrays: Mapping[str, Array | None],
    outputs: Sequence[jax.ShapeDtypeStruct],
) -> Sequence[Array]:
    """Run a kernel of a program and refs to arrays, in this order, and outputs."""
    given = [_flags(x) if name == "keep" else x for name, x in arrays.items()]
    if target.views:
        # Here, as its compiler is not a part of JAX everywhere.
        from lru.scan.pallas import mosaic

        return mosaic.call(kernel, tiling, given, outputs, **target.options)
    special = {"beyond": _block_beyond, "keep": partial(_block_of_flags, target)}
    return pl.pallas_call(
        lambda *refs: kernel(Program(tiling), *refs),
        outputs,
        grid=tiling.grid,
        in_specs=[special.get(name, _block)(tiling, x) for name, x in arrays.items()],
        out_specs=[_block(tiling, x) for x in outputs],
        name=f"linear_scan_{kernel.__name__}",
        **target.options,
    )(*given)


def _tiling(target: Target, down: bool, a: Array, *others: Array) -> Tiling:
    """Cut a problem, given the arrays that are read at every step, and a, which may be."""
    rows, length, parts, width = others[0].shape
    reads = parts * len(others) + (a.shape[-2] if a.ndim == 4 else 0)
    steps = min(target.steps or length, length)
    unroll = min(max(target.ahead // reads, 1), steps)
    return Tiling(
        rows,
        length,
        width,
        steps,
        lanes=target.lanes if target.masked or target.views else min(target.lanes, width),
        unroll=1 << unroll.bit_length() - 1,
        masked=target.masked,
        down=down,
    )


def _block(tiling: Tiling, x: Array | jax.ShapeDtypeStruct) -> pl.BlockSpec:
    """Block that a program sees of [B, T, P, N], [B, P, N] or [P, N]."""
    parts = x.shape[-2]
    if len(x.shape) == 4:
        shape = (None, tiling.steps, parts, tiling.lanes)
        return pl.BlockSpec(shape, lambda row, lane, k: (row, tiling.block(k), 0, lane))
    if len(x.shape) == 3:
        return pl.BlockSpec((None, parts, tiling.lanes), lambda row, lane, k: (row, 0, lane))
    return pl.BlockSpec((parts, tiling.lanes), lambda row, lane, k: (0, lane))


def _block_beyond(tiling: Tiling, h: Array | None) -> pl.BlockSpec | None:
    """The one step of h that follows the block of a program."""
    if h is None:
        return None
    shape = (None, None, h.shape[-2], tiling.lanes)
    return pl.BlockSpec(shape, lambda row, lane, k: (row, tiling.beyond(k), 0, lane))


def _block_of_flags(target: Target, tiling: Tiling, keep: Array | None) -> pl.BlockSpec | None:
    if keep is None:
        return None
    shape = (None, 1, tiling.steps)
    where = {} if target.scalars is None else {"memory_space": target.scalars}
    return pl.BlockSpec(shape, lambda row, lane, k: (row, 0, tiling.block(k)), **where)


def _flags(keep: Array | None) -> Array | None:
    """[B, 1, T] of 32 bits: what can be read one by one, and cut into blocks of one row."""
    return None if keep is None else keep.astype(jnp.int32)[:, None]
