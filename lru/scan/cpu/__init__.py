"""Loops in C++, compiled on the machine that runs them, as operations of JAX.

The sources beside this file are compiled when they are first used, by the system's C++ compiler for
the processor at hand, and kept under `cache_folder()`.
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
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, ffi

logger = logging.getLogger(__name__)

FOLDER = Path(__file__).parent
SOURCES = sorted(FOLDER.glob("*.cc"))
HEADERS = sorted(FOLDER.glob("*.h"))
TARGETS = tuple(f"lru_{path.stem}_{way}" for path in SOURCES for way in ("forward", "backward"))
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


def _compiled(compiler: str) -> Path:
    """The shared library, compiled unless that was done before."""
    texts = [path.read_text() for path in (*SOURCES, *HEADERS)]
    identity = [*texts, *FLAGS, _run([compiler, "--version"]), version("jaxlib"), _processor()]
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
            include = ("-isystem", ffi.include_dir())
            _run([compiler, *FLAGS, *include, *map(str, SOURCES), "-o", str(unfinished)])
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


def call(
    target: str,
    results: jax.ShapeDtypeStruct | tuple[jax.ShapeDtypeStruct, ...],
    *arguments: Array,
    in_place: int | None = None,
    **attributes: bool,
) -> Any:
    """Run a loop on a CPU.

    Args:
        target: a name in `TARGETS`.
        results: what it returns.
        arguments: its arrays.
        in_place: the argument over which the first result may be written.
        attributes: its options.
    """
    aliases = {} if in_place is None else {in_place: 0}
    operation = ffi.ffi_call(
        target, results, vmap_method="broadcast_all", input_output_aliases=aliases
    )
    return operation(*arguments, **attributes)


def mask(keep: Array | None) -> Array:
    """The mask as the loops take it."""
    return jnp.zeros(0, bool) if keep is None else keep


def require() -> None:
    """Raise `NativeUnavailableError` unless the loops are available."""
    reason = problem()
    if reason is not None:
        raise NativeUnavailableError(reason)
