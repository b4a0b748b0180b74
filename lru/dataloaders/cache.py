"""The cache on disk: `.npy` files in one folder, which appears whole or not at all."""

import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import Int, Int32, Integer, Shaped, UInt

from lru.dataloaders.arrays import Dense, Ragged

SPLITS = ("train", "val", "test")
ABANDONED_AFTER = 3600.0
"""Seconds without a write after which a partial folder is taken for a killed process's."""

_HEADER_BYTES = 128
_SUFFIX = ".partial"


class CacheError(RuntimeError):
    """A cached data set that is not what its card says; the message says what to delete."""


class ArrayWriter:
    """A `.npy` file written piece by piece along its first axis, so that it needs no memory.

    Args:
        path: file to create.
        dtype: stored type.
        row_shape: shape of one entry along the first axis.
    """

    def __init__(self, path: Path, dtype: np.typing.DTypeLike, row_shape: tuple[int, ...] = ()):
        self._dtype = np.dtype(dtype)
        self._row_shape = row_shape
        self._rows = 0
        self._file = path.open("wb")
        self._file.write(bytes(_HEADER_BYTES))

    def append(self, rows: Shaped[np.ndarray, "rows ..."]) -> None:
        """Add `rows`, `[rows, *row_shape]`.

        Raises:
            ValueError: if the shape does not fit.
        """
        if rows.shape[1:] != self._row_shape:
            raise ValueError(f"rows have shape {rows.shape[1:]}, but {self._row_shape} is stored")
        self._file.write(np.ascontiguousarray(rows, self._dtype).data)
        self._rows += len(rows)

    def close(self) -> None:
        """Write the header, which holds the number of rows, and close the file."""
        if self._file.closed:
            return
        entries = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (self._rows, *self._row_shape),
        }
        prefix = np.lib.format.magic(1, 0) + (_HEADER_BYTES - 10).to_bytes(2, "little")
        text = repr(entries).encode("latin1").ljust(_HEADER_BYTES - 11) + b"\n"
        self._file.seek(0)
        self._file.write(prefix + text)
        self._file.close()

    def __enter__(self) -> "ArrayWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class RaggedWriter:
    """One ragged split, written a chunk of rows at a time.

    Args:
        folder: where the split's files go.
        split: name of the split.
        dtype: type of the token ids.
        steps: steps with a target in each row if targets are per step, else None.
    """

    def __init__(
        self, folder: Path, split: str, dtype: np.typing.DTypeLike, steps: int | None = None
    ):
        self._values = ArrayWriter(_file(folder, split, "values"), dtype)
        self._offsets = ArrayWriter(_file(folder, split, "offsets"), np.int64)
        row_shape = () if steps is None else (steps,)
        self._labels = ArrayWriter(_file(folder, split, "labels"), np.int32, row_shape)
        self._total = 0
        self._offsets.append(np.zeros(1, np.int64))

    def append(
        self,
        values: UInt[np.ndarray, " total"],
        lengths: Int[np.ndarray, " n"],
        labels: Integer[np.ndarray, " n"] | Integer[np.ndarray, "n T"],
    ) -> None:
        """Add rows: their ids one after the other, their lengths and their labels."""
        self._values.append(values)
        ends = self._total + np.cumsum(lengths, dtype=np.int64)
        self._offsets.append(ends)
        self._labels.append(labels)
        self._total += len(values)

    def __enter__(self) -> "RaggedWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for writer in (self._values, self._offsets, self._labels):
            writer.close()


def write_dense(
    folder: Path,
    split: str,
    inputs: Shaped[np.ndarray, "n T F"],
    labels: Int32[np.ndarray, " n"] | Int32[np.ndarray, "n T"],
) -> None:
    """Store a dense split that fits into memory."""
    np.save(_file(folder, split, "inputs"), inputs, allow_pickle=False)
    np.save(_file(folder, split, "labels"), labels, allow_pickle=False)


def read_split(folder: Path, split: str) -> Dense | Ragged:
    """A stored split, memory-mapped.

    Raises:
        CacheError: if a file is missing or not what its header says.
    """
    try:
        labels = _mapped(_file(folder, split, "labels"))
        if _file(folder, split, "inputs").exists():
            return Dense(_mapped(_file(folder, split, "inputs")), labels)
        values, offsets = (_mapped(_file(folder, split, part)) for part in ("values", "offsets"))
        return Ragged(values, offsets, labels)
    except (OSError, ValueError, EOFError) as error:
        raise damaged(folder, f"split {split!r} cannot be read ({error})") from error


def damaged(folder: Path, what: str) -> CacheError:
    """The error for a cached folder that must be deleted."""
    return CacheError(f"the cached data set is damaged: {what}; delete {folder} and prepare again")


def checksum(splits: Mapping[str, Dense | Ragged]) -> str:
    """Hex sha256 over the types, shapes and contents of all arrays."""
    total = hashlib.sha256()
    for name, split in sorted(splits.items()):
        for part, array in sorted(vars(split).items()):
            total.update(f"{name}.{part} {array.dtype.str} {array.shape}\n".encode())
            total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()


def size_in_bytes(splits: Mapping[str, Dense | Ragged]) -> int:
    """Bytes of all arrays."""
    return sum(array.nbytes for split in splits.values() for array in vars(split).values())


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
    for attempts_left in (2, 1, 0):
        if folder.exists():
            if is_current():
                return
            stale = partial.with_name(f".{folder.name}.{uuid.uuid4().hex}{_SUFFIX}")
            folder.rename(stale)
            shutil.rmtree(stale, ignore_errors=True)
        try:
            partial.rename(folder)
            return
        except OSError:
            if not (attempts_left and folder.exists()):
                raise


def _file(folder: Path, split: str, part: str) -> Path:
    return folder / f"{split}.{part}.npy"


def _mapped(path: Path) -> np.ndarray:
    # A plain view: slicing a np.memmap costs several times what slicing an array does.
    return np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)


def _sweep(folder: Path) -> None:
    """Delete what killed processes left of their attempts at `folder`."""
    for partial in folder.parent.glob(f".{folder.name}.*{_SUFFIX}"):
        try:
            written = max(os.stat(path).st_mtime for path in (partial, *partial.iterdir()))
        except FileNotFoundError:
            continue
        if time.time() - written > ABANDONED_AFTER:
            shutil.rmtree(partial, ignore_errors=True)
