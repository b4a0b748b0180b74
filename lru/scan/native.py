"""One pass over memory in each direction, on all cores of a CPU: loops in C++ (`native.cc`).

A loop that XLA compiles runs on one core and starts a kernel every step; this one does neither.
The source is compiled when the method is first used, by the system's C++ compiler for the machine
at hand, and kept under `cache_folder()`. On other platforms than a CPU `sequential` runs instead.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
from jax import Array, ffi, lax

from lru.scan import parts, sequential
from lru.scan.methods import LINEAR_METHODS, kept

logger = logging.getLogger(__name__)

SOURCE = Path(__file__).with_suffix(".cc")
TARGETS = ("lru_linear_forward", "lru_linear_backward")
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fPIC", "-shared")


class NativeUnavailableError(RuntimeError):
    """The loops in C++ cannot be compiled on this machine."""


def cache_folder() -> Path:
    """Where compiled loops are kept: `lru/` in `XDG_CACHE_HOME`, which is `~/.cache` if not set."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lru"


@cache
def problem() -> str | None:
    """Compile and load the loops, once a process; the reason if they are not available."""
    try:
        _load()
    except NativeUnavailableError as error:
        return str(error)
    return None


def _load() -> None:
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    if sys.platform not in ("linux", "darwin") or compiler is None:
        raise NativeUnavailableError(
            "scan method 'native' needs a C++ compiler, and none was found (c++, g++ or $CXX)"
        )
    try:
        library = ctypes.CDLL(str(_compiled(compiler)))
    except OSError as error:
        raise NativeUnavailableError(f"scan method 'native' cannot be loaded: {error}") from error
    for name in TARGETS:
        ffi.register_ffi_target(name, ffi.pycapsule(getattr(library, name)), platform="cpu")
        # Rows are independent, so a batch split over devices needs no exchange.
        ffi.register_ffi_target_as_batch_partitionable(name)


def _compiled(compiler: str) -> Path:
    """The shared library, compiled unless that was done before."""
    identity = [SOURCE.read_text(), *FLAGS, _run([compiler, "--version"]), _processor()]
    identity.append(version("jaxlib"))
    digest = hashlib.sha256("\n".join(identity).encode()).hexdigest()[:16]
    library = cache_folder() / f"scan-{digest}.so"
    if library.exists():
        return library
    logger.info("compiling the scan for this machine's CPU, once: %s", library)
    try:
        # Shared libraries are code: nobody else may put one there.
        library.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:
            unfinished = Path(folder) / library.name
            _run([compiler, *FLAGS, f"-I{ffi.include_dir()}", str(SOURCE), "-o", str(unfinished)])
            unfinished.replace(library)
    except OSError as error:
        raise NativeUnavailableError(
            f"scan method 'native' cannot be kept in {library.parent}: {error}"
        ) from error
    return library


def _run(command: list[str]) -> str:
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        detail = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        raise NativeUnavailableError(
            f"scan method 'native' cannot be compiled: {command[0]} says {detail[-1]!r}"
        ) from error


def _processor() -> str:
    """What `-march=native` depends on: homes are shared between machines of different kinds."""
    description = Path("/proc/cpuinfo")
    lines = description.read_text().splitlines() if description.exists() else []
    flags = [line for line in lines if line.startswith(("model name", "flags", "Features"))]
    return "\n".join([platform.machine(), platform.processor(), *flags[:2]])


def _require() -> None:
    reason = problem()
    if reason is not None:
        raise NativeUnavailableError(reason)


def _mask(keep: Array | None) -> Array:
    return jnp.zeros(0, bool) if keep is None else keep


def _solve(a: Array, b: Array, h0: Array, keep: Array | None, reverse: bool) -> Array:
    """Solve the linear problem of `lru.scan.methods`."""
    _require()

    def on_cpu(a: Array, b: Array, h0: Array, keep: Array | None) -> Array:
        # h is written over b where nothing else needs b.
        call = ffi.ffi_call(
            TARGETS[0],
            jax.ShapeDtypeStruct(b.shape, b.dtype),
            vmap_method="broadcast_all",
            input_output_aliases={1: 0},
        )
        return call(a, b, h0, _mask(keep), reverse=reverse)

    def elsewhere(a: Array, b: Array, h0: Array, keep: Array | None) -> Array:
        return sequential.solve(a, b, h0, keep, reverse)

    return lax.platform_dependent(a, b, h0, keep, cpu=on_cpu, default=elsewhere)


def _forward(
    a: Array, b: Array, h0: Array, keep: Array | None, reverse: bool
) -> tuple[Array, tuple]:
    h = _solve(a, b, h0, keep, reverse)
    return h, (a, h, h0, keep)


def _backward(
    reverse: bool, saved: tuple[Array, Array, Array, Array | None], g: Array
) -> tuple[Array | None, ...]:
    def on_cpu(
        a: Array, h: Array, h0: Array, keep: Array | None, g: Array
    ) -> tuple[Array, Array, Array]:
        constant = a.ndim == 2
        shape_of_da = (h.shape[0], *a.shape) if constant else a.shape
        call = ffi.ffi_call(
            TARGETS[1],
            (jax.ShapeDtypeStruct(g.shape, g.dtype), jax.ShapeDtypeStruct(shape_of_da, g.dtype)),
            vmap_method="broadcast_all",
            input_output_aliases={1: 0},
        )
        db, da = call(a, g, h, h0, _mask(keep), reverse=reverse)
        start = h.shape[1] - 1 if reverse else 0
        conj = parts.conjugate(a if constant else a[:, start])
        dh0 = kept(None if keep is None else keep[:, start], parts.multiply(conj, db[:, start]))
        return da.sum(0) if constant else da, db, dh0

    def elsewhere(
        a: Array, h: Array, h0: Array, keep: Array | None, g: Array
    ) -> tuple[Array, Array, Array]:
        return sequential.gradients(reverse, (a, h, h0, keep), g)[:3]

    return *lax.platform_dependent(*saved, g, cpu=on_cpu, default=elsewhere), None


linear = jax.custom_vjp(_solve, nondiff_argnums=(4,))
linear.defvjp(_forward, _backward)
LINEAR_METHODS.register("native")(linear)
