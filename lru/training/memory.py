"""Memory: that of programs and of the C library on a CPU, and how much of it a state takes."""

import ctypes
import resource
import sys
from collections.abc import Callable
from typing import Any

import jax

from lru.devices import bytes_of_device
from lru.models import ModelConfig

# Options of glibc's mallopt (malloc.h) and what they are set to.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8
_LARGEST = 2**31 - 1
_PAD = 64 * 2**20

# Numbers in a square matrix of each layer from which on a state is measured before it is made: that
# takes a tenth of a second.
_MEASURED_FROM = 2**26


def keep_freed_memory() -> None:
    """Let glibc keep what is freed, for the next update to use.

    XLA frees the buffers of an update when it ends. By default glibc returns large ones to the
    system, which then has to clear every page again for the next update: up to a third of the time
    of an update on a CPU. Does nothing where the C library is another.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in (
            (_ARENA_MAX, 1),
            (_MMAP_THRESHOLD, _LARGEST),
            (_TRIM_THRESHOLD, _LARGEST),
            (_TOP_PAD, _PAD),
        ):
            mallopt(option, value)


def compiler_options() -> dict[str, Any]:
    """Options of the compiler for training: on a CPU, the order of operations by memory.

    By default a CPU makes everything as early as it can. Blocks that are computed again for the
    gradients, and float32 copies of bfloat16 that these read, are then made in the forward pass
    and take more memory than what they stand for.
    """
    if jax.default_backend() != "cpu":
        return {}
    return {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}


def peak_memory() -> int:
    """Most bytes in use at a time so far: of the local device that used most, or of the process.

    The latter where devices do not tell, as CPUs do not.
    """
    statistics = [device.memory_stats() or {} for device in jax.local_devices()]
    of_process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if sys.platform != "darwin":
        of_process *= 1024
    return max((each.get("peak_bytes_in_use", 0) for each in statistics), default=0) or of_process


def check_fits(make_state: Callable[[], Any], model: ModelConfig, lanes: int) -> None:
    """Refuse a state that the device has no room for, before any of it is made.

    Args:
        make_state: makes that of a lane.
        model: the network.
        lanes: number of lanes.

    Raises:
        ValueError: naming the flags, with the bytes that are needed and those that there are.
    """
    width = max(model.d_model, model.d_hidden)
    if lanes * model.n_layers * width**2 < _MEASURED_FROM:
        return
    leaves = jax.tree.leaves(jax.eval_shape(make_state))
    needed = lanes * sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    there = bytes_of_device()
    if needed > there:
        raise ValueError(
            f"d_model {model.d_model}, d_hidden {model.d_hidden} and n_layers {model.n_layers} "
            f"need {needed:,} bytes for parameters and the state of the optimiser"
            + (f" of {lanes} lanes" if lanes > 1 else "")
            + f", but there are {there:,}; choose less"
        )
