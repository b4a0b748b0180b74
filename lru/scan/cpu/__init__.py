"""Loops in C++, compiled on the machine that runs them, as operations of JAX.

Each source beside this file is compiled when its loops are first used, by the system's C++ compiler
for the processor at hand, and kept under `cache_folder()`.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shlex
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
LOOPS = tuple(sorted(path.stem for path in FOLDER.glob("*.cc")))
HEADERS = sorted(FOLDER.glob("*.h"))
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fPIC", "-shared")


class NativeUnavailableError(RuntimeError):
    """The loops in C++ cannot be compiled on this machine."""


@cache
def n_cores() -> int:
    """Cores that this process may use, which a container or a scheduler may have cut down."""
    known = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1


def cache_folder() -> Path:
    """Folder of compiled loops: `lru/` in `XDG_CACHE_HOME`, which is `~/.cache` if not set.

    Raises:
        NativeUnavailableError: if neither that variable nor a home is known.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lru"
    except RuntimeError as error:
        raise NativeUnavailableError(
            "scan method 'native' needs a folder for what it compiles, and neither "
            "$XDG_CACHE_HOME nor a home is known"
        ) from error


def targets(loops: str) -> tuple[str, str]:
    """The operations of a name in `LOOPS`."""
    return f"lru_{loops}_forward", f"lru_{loops}_backward"


@cache
def problem(loops: str) -> str | None:
    """Compile and load some loops, once a process; the reason if they are not available."""
    try:
        _load(loops)
    except NativeUnavailableError as error:
        return str(error)
    return None


def available(loops: str) -> bool:
    """True if the loops can be used; if not, a warning says why, once."""
    reason = problem(loops)
    if reason is not None:
        _warn(reason)
    return reason is None


@cache
def _warn(reason: str) -> None:
    logger.warning("%s; slower methods take its place", reason)


def _load(loops: str) -> None:
    compiler = _compiler()
    if sys.platform not in ("linux", "darwin") or not compiler:
        raise NativeUnavailableError(
            "scan method 'native' needs a C++ compiler, and none was found (c++, g++ or $CXX)"
        )
    library = _library(compiler, loops)
    for name in targets(loops):
        ffi.register_ffi_target(name, ffi.pycapsule(getattr(library, name)), platform="cpu")


def _compiler() -> list[str]:
    """The command, which may be several words as in CXX="ccache g++"; nothing if there is none."""
    found = [path for path in map(shutil.which, ("c++", "g++")) if path is not None]
    return shlex.split(os.environ.get("CXX", "")) or found[:1]


def _library(compiler: list[str], loops: str) -> ctypes.CDLL:
    path = _compiled(compiler, loops)
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        logger.warning("%s cannot be loaded and is compiled once more: %s", path, error)
        path.unlink(missing_ok=True)
    try:
        return ctypes.CDLL(str(_compiled(compiler, loops)))
    except OSError as error:
        raise NativeUnavailableError(f"scan method 'native' cannot be loaded: {error}") from error


def _compiled(compiler: list[str], loops: str) -> Path:
    """The shared library, compiled unless that was done before."""
    source = FOLDER / f"{loops}.cc"
    texts = [path.read_text() for path in (source, *HEADERS)]
    identity = [*texts, *FLAGS, _run([*compiler, "--version"]), version("jaxlib"), _processor()]
    digest = hashlib.sha256("\n".join(identity).encode()).hexdigest()[:16]
    library = cache_folder() / f"{loops}-{digest}.so"
    try:
        library.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_owner(library.parent)
        if library.exists():
            return library
        logger.info("compiling loops for this machine's CPU, once: %s", library)
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:
            unfinished = Path(folder) / library.name
            include = ("-isystem", ffi.include_dir())
            _run([*compiler, *FLAGS, *include, str(source), "-o", str(unfinished)])
            with unfinished.open("rb") as file:
                os.fsync(file.fileno())
            unfinished.replace(library)
    except OSError as error:
        raise NativeUnavailableError(
            f"scan method 'native' cannot be kept in {library.parent}: {error}"
        ) from error
    return library


def _check_owner(folder: Path) -> None:
    """Shared libraries are code: nobody else may have put one there."""
    status = folder.stat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise NativeUnavailableError(
            f"scan method 'native' loads no code from {folder}, which belongs to another user or "
            "lets others write: take their rights away, or name another folder in $XDG_CACHE_HOME"
        )


def _run(command: list[str]) -> str:
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        said = (getattr(error, "stderr", None) or "").strip() or str(error)
        raise NativeUnavailableError(
            f"scan method 'native' cannot be compiled: {command[0]} says {said.splitlines()[-1]!r}"
        ) from error


def _processor() -> str:
    """Key of what `-march=native` depends on: machines of different kinds may share a home."""
    description = Path("/proc/cpuinfo")
    lines = description.read_text().splitlines() if description.exists() else []
    flags = [line for line in lines if line.startswith(("model name", "flags", "Features"))]
    return "\n".join([platform.machine(), platform.processor(), *flags[:2]])


def call(
    target: str,
    results: jax.ShapeDtypeStruct | tuple[jax.ShapeDtypeStruct, ...],
    *arguments: Array,
    in_place: int | None = None,
    vmap_method: str = "broadcast_all",
    **attributes: bool | str,
) -> Any:
    """Run a loop on a CPU.

    Args:
        target: an operation of loops that are available.
        results: what it returns.
        arguments: its arrays.
        in_place: the argument over which the first result may be written.
        vmap_method: as of `jax.ffi.ffi_call`; "expand_dims" for loops whose arguments are shared.
        attributes: its options.
    """
    aliases = {} if in_place is None else {in_place: 0}
    operation = ffi.ffi_call(target, results, vmap_method=vmap_method, input_output_aliases=aliases)
    return operation(*arguments, **attributes)


def mask(keep: Array | None) -> Array:
    """The mask as the loops take it."""
    return jnp.zeros(0, bool) if keep is None else keep


def require(loops: str) -> None:
    """Raise `NativeUnavailableError` unless the loops are available."""
    reason = problem(loops)
    if reason is not None:
        raise NativeUnavailableError(reason)
