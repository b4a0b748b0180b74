"""The method of every scan: all rules by which `auto` chooses, each with what it stands on.

Times of a CPU are medians with gradients on 2 cores (AMD EPYC), those of a GPU of one H100; see
"Choice of a method" in docs/performance.md, and docs/accelerators.md.
"""

import logging
import re
from functools import cache
from typing import Any, Literal

import jax

from lru.scan import cpu
from lru.scan.methods import DENSE_METHODS, LINEAR_METHODS, time_is_split
from lru.scan.pallas import has_triton
from lru.scan.portability import is_portable

logger = logging.getLogger(__name__)

Operation = Literal["linear", "shard", "dense", "gated", "elementwise", "pooling", "projected"]

FUSED = "fused"
"""In place of a method: one loop in C++ for the whole operation."""

# Steps from which loops in C++ are worth their call: times with gradients over those of
# `sequential` are 0.5 to 0.9 at 16 steps and 1.1 to 2 at one for elementwise scans, 0.9 and 2.5 for
# projected ones, 0.5 to 0.7 at 256 and 1.2 to 1.7 at 16 for dense ones. Gated, pooled and
# nonlinear elementwise ones are at most as long forward from one step on, where most calls of a few
# steps are.
LEAST_STEPS = {
    "linear": 16,
    "shard": 16,
    "projected": 16,
    "dense": 256,
    "gated": 1,
    "elementwise": 1,
    "pooling": 1,
}

# Elements of a recurrent matrix up to which gated loops in C++ are the faster ones: of one that a
# core's cache holds, and of one with which each core multiplies `ROWS_A_CORE` rows of the batch or
# more. With gradients XLA's loops take 1.1 to 2 times as long with 2^18 elements, 1.05 to 1.4 times
# with 2^20 to 2^22 and 2 to 10 rows a core, but 0.5 times with 2^22 and one row
# (benchmarks/results/gated.json).
LARGEST_MATRIX, LARGEST_MATRIX_OF_MANY_ROWS = 2**18, 2**22
ROWS_A_CORE = 4

# Recurrences B N that fill a GPU with a thread each: with gradients `pallas` takes 0.5 to 1.07 of
# the time of `associative`, with half as many 0.7 to 1.7 (accelerator-h100-after.json).
LEAST_LANES = 6144

# Of nonlinear recurrences: on a CPU Newton's method takes 3.8 to 68 times as long, 1.2 times for a
# ParaGRU or a ParaLSTM (benchmarks/results/newton.json). Accelerators were not measured.
NONLINEAR = "sequential"


def select(
    operation: Operation,
    shape: tuple[Any, ...],
    method: str = "auto",
    *,
    platform: str | None = None,
    elements: int = 0,
    split: bool = False,
) -> str:
    """The method for a problem; one that `auto` chose is logged once.

    Args:
        operation: elementwise ("linear", or "shard" for the steps that one device has of one), with
            a matrix ("dense"), or one that the loops in C++ know as a whole.
        shape: that of the states [B, T, N]; of symbols in a portable program.
        method: a name in `DENSE_METHODS` for "dense", else in `LINEAR_METHODS`, or "auto".
        platform: a back end of JAX; None for that of this process.
        elements: of the matrix of a gated operation.
        split: whether the compiler splits the batch over devices.

    Returns:
        A name in the registry, or `FUSED`.

    Raises:
        UnknownNameError: if there is no such method.
    """
    if method != "auto":
        method = (DENSE_METHODS if operation == "dense" else LINEAR_METHODS).resolve(method)
    # Other machines have no other method; in empty arrays there is nothing to cut into pieces.
    if is_portable() or 0 in shape:
        return "sequential"
    rows, steps, width = shape
    automatic, platform = method == "auto", platform or jax.default_backend()
    if automatic:
        method = _automatic(operation, platform, shape, elements, split)
    if method == "native" and operation in ("gated", "elementwise", "pooling", "projected"):
        method = FUSED
    if automatic:
        _log(platform, operation, steps, rows * width, method)
    return method


def _automatic(
    operation: Operation, platform: str, shape: tuple[int, ...], elements: int, split: bool
) -> str:
    rows, steps, width = shape
    # Any other method would gather all steps on every device.
    if operation in ("linear", "pooling", "projected") and time_is_split():
        return "sharded"
    if platform == "cpu":
        many = rows >= ROWS_A_CORE * cpu.n_cores()
        largest = LARGEST_MATRIX_OF_MANY_ROWS if many else LARGEST_MATRIX
        # The compiler would gather a batch that it splits: loops in C++ are opaque to it.
        worth = steps >= LEAST_STEPS[operation] and elements <= largest and not split
        # `sequential` is the fastest other one from 16 steps on, for every problem; at one step all
        # do the same work.
        loops = "linear" if operation == "shard" else operation
        return "native" if worth and cpu.available(loops) else "sequential"
    # There is no other method for it.
    if operation in ("gated", "elementwise"):
        return "sequential"
    # An LRU with gradients, T 1,024, takes 3.0 ms with `associative` and 47 with `sequential` on an
    # H100. Dense scans, `mosaic` and other accelerators were not measured.
    kernel = platform == "gpu" and operation != "dense" and rows * width >= LEAST_LANES
    return "pallas" if kernel and _one_device_of_triton() else "associative"


def _one_device_of_triton() -> bool:
    """True if there is one device, of CUDA's compute capability 8.0 or more, and Triton for it.

    Several devices may share a batch, which the partitioner would gather for a kernel.
    """
    devices = jax.devices()
    capability = re.fullmatch(r"(\d+)\.\d+", getattr(devices[0], "compute_capability", ""))
    recent = len(devices) == 1 and capability is not None and int(capability[1]) >= 8
    return recent and has_triton()


@cache
def _log(*choice: str | int) -> None:
    logger.info("scan method on %s, %s problem, %d steps, %d lanes: %s", *choice)
