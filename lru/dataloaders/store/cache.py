"""The cache on disk: `.npy` files in one folder, which appears whole or not at all."""

import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from lru.dataloaders.store.arrays import Dense, Labels, Pairs, Ragged, Split

try:
    import fcntl
except ImportError:
    fcntl = None

ABANDONED_AFTER = 3600.0
"""Seconds without a write after which a partial folder is taken for a killed process's."""

DOCUMENTS = ("first", "second")
"""Of a pair, as in the names of its files."""

_SUFFIX = ".partial"
_ATTEMPTS = 5


class CacheError(RuntimeError):
    """A cached data set that is not what its card says; the message says what to delete."""


def write_dense(
    folder: Path, split: str, inputs: Shaped[np.ndarray, "n T F"], labels: Labels
) -> None:
    """Store a dense split that fits into memory."""
    np.save(file_of(folder, split, "inputs"), inputs, allow_pickle=False)
    np.save(file_of(folder, split, "labels"), labels, allow_pickle=False)


def read_split(folder: Path, split: str) -> Split:
    """A stored split, memory-mapped.

    Raises:
        CacheError: if a file is missing or not what its header says.
    """
    try:
        labels = _mapped(file_of(folder, split, "labels"))
        if file_of(folder, split, "inputs").exists():
            return Dense(_mapped(file_of(folder, split, "inputs")), labels)
        if file_of(folder, split, "first.values").exists():
            first, second = (_ragged(folder, f"{split}.{part}", labels) for part in DOCUMENTS)
            return Pairs(first, second)
        return _ragged(folder, split, labels)
    except (OSError, ValueError, EOFError) as error:
        raise damaged(folder, f"split {split!r} cannot be read ({error})") from error


def damaged(folder: Path, what: str) -> CacheError:
    """The error for a cached folder that must be deleted."""
    return CacheError(f"the cached data set is damaged: {what}; delete {folder} and prepare again")


def checksum(splits: Mapping[str, Split]) -> str:
    """Hex sha256 over the types, shapes and contents of all arrays."""
    total = hashlib.sha256()
    for name, split in sorted(splits.items()):
        for part, array in sorted(_arrays(split).items()):
            total.update(f"{name}.{part} {array.dtype.str} {array.shape}\n".encode())
            total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()


def size_in_bytes(splits: Mapping[str, Split]) -> int:
    """Bytes of all arrays."""
    return sum(array.nbytes for split in splits.values() for array in _arrays(split).values())


def _arrays(split: Split) -> dict[str, np.ndarray]:
    """The arrays of a split by the names of their files; labels once."""
    if not isinstance(split, Pairs):
        return vars(split)
    arrays = {
        f"{document}.{part}": array
        for document in DOCUMENTS
        for part, array in vars(getattr(split, document)).items()
        if part != "labels"
    }
    return arrays | {"labels": split.labels}


def _ragged(folder: Path, name: str, labels: np.ndarray) -> Ragged:
    values, offsets = (_mapped(file_of(folder, name, part)) for part in ("values", "offsets"))
    return Ragged(values, offsets, labels)


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """A temporary sibling of `folder` to build in; gone when the block ends, unless published."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    partial = folder.parent / f".{folder.name}.{uuid.uuid4().hex}{_SUFFIX}"
    partial.mkdir()
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def publish(partial: Path, folder: Path, is_current: Callable[[], bool]) -> None:
    """Rename `partial` to `folder`, unless another process put the same thing there first.

    Args:
        partial: the finished folder, from `staging`.
        folder: the name that it takes.
        is_current: whether what lies at `folder` will do.

    Raises:
        OSError: if the folder can neither be created nor replaced.
    """
    with _locked(folder.parent):
        for attempts_left in reversed(range(_ATTEMPTS)):
            try:
                if folder.exists():
                    if is_current():
                        return
                    stale = partial.with_name(f".{folder.name}.{uuid.uuid4().hex}{_SUFFIX}")
                    folder.rename(stale)
                    shutil.rmtree(stale, ignore_errors=True)
                partial.rename(folder)
                return
            except (OSError, CacheError):
                # Without a lock, another process may come between any two of these lines.
                if not attempts_left:
                    raise


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time, where the system can lock a folder (Windows and some NFS cannot)."""
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def file_of(folder: Path, split: str, part: str) -> Path:
    """The file of one array of a split."""
    return folder / f"{split}.{part}.npy"


def _mapped(path: Path) -> np.ndarray:
    # A plain view: slicing a np.memmap costs several times what slicing an array does.
    return np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)


def _sweep(folder: Path) -> None:
    """Delete what killed processes left of their attempts at `folder`."""
    for partial in folder.parent.glob(f".{folder.name}.*{_SUFFIX}"):
        try:
            written = max(os.stat(path).st_mtime for path in (partial, *partial.rglob("*")))
        except FileNotFoundError:
            continue
        if time.time() - written > ABANDONED_AFTER:
            shutil.rmtree(partial, ignore_errors=True)
