"""Memory of the C library on a CPU."""

import ctypes
import sys

# Options of glibc's mallopt (malloc.h) and what they are set to.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8
_LARGEST = 2**31 - 1
_PAD = 64 * 2**20


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
