"""Devices that JAX computes on."""

import os

import jax


def bytes_of_device() -> int:
    """Memory of the device: of a CPU, that of the machine."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in statistics:
        return statistics["bytes_limit"]
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
