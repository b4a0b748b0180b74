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

from lru.dataloaders.arrays import Dense, Pairs, Ragged, Split

SPLITS = ("train", "val", "test")
ABANDONED_AFTER = 3600.0
"""Seconds without a write after which a partial folder is taken for a killed process's."""

_DOCUMENTS = ("first", "second")
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
        self._rows = _RowWriter(folder, split, dtype)
        row_shape = () if steps is None else (steps,)
        self._labels = ArrayWriter(_file(folder, split, "labels"), np.int32, row_shape)

    def append(
        self,
        values: UInt[np.ndarray, " total"],
        lengths: Int[np.ndarray, " n"],
        labels: Integer[np.ndarray, " n"] | Integer[np.ndarray, "n T"],
    ) -> None:
        """Add rows: their ids one after the other, their lengths and their labels."""
        self._rows.append(values, lengths)
        self._labels.append(labels)

    def __enter__(self) -> "RaggedWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._rows.close()
        self._labels.close()


class DenseWriter:
    """One dense split with a class per row, written a chunk of rows at a time.

    Args:
        folder: where the split's files go.
        split: name of the split.
        dtype: type of the inputs.
        row_shape: steps and features of a row.
    """

    def __init__(
        self, folder: Path, split: str, dtype: np.typing.DTypeLike, row_shape: tuple[int, int]
    ):
        self._inputs = ArrayWriter(_file(folder, split, "inputs"), dtype, row_shape)
        self._labels = ArrayWriter(_file(folder, split, "labels"), np.int32)

    def append(
        self, inputs: Shaped[np.ndarray, "n T F"], labels: Integer[np.ndarray, " n"]
    ) -> None:
        """Add rows and their labels."""
        self._inputs.append(inputs)
        self._labels.append(labels)

    def __enter__(self) -> "DenseWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._inputs.close()
        self._labels.close()


class PairWriter:
    """One split of pairs of documents, written a chunk of rows at a time.

    Args:
        folder: where the split's files go.
        split: name of the split.
        dtype: type of the token ids.
    """

    def __init__(self, folder: Path, split: str, dtype: np.typing.DTypeLike):
        self._first, self._second = (
            _RowWriter(folder, f"{split}.{document}", dtype) for document in _DOCUMENTS
        )
        self._labels = ArrayWriter(_file(folder, split, "labels"), np.int32)

    def append(
        self,
        first: tuple[UInt[np.ndarray, " total1"], Int[np.ndarray, " n"]],
        second: tuple[UInt[np.ndarray, " total2"], Int[np.ndarray, " n"]],
        labels: Integer[np.ndarray, " n"],
    ) -> None:
        """Add rows: ids one after the other and lengths of both documents, and their labels."""
        self._first.append(*first)
        self._second.append(*second)
        self._labels.append(labels)

    def __enter__(self) -> "PairWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for writer in (self._first, self._second, self._labels):
            writer.close()


class _RowWriter:
    """Rows of any length: `NAME.values.npy` and `NAME.offsets.npy`."""

    def __init__(self, folder: Path, name: str, dtype: np.typing.DTypeLike):
        self._values = ArrayWriter(_file(folder, name, "values"), dtype)
        self._offsets = ArrayWriter(_file(folder, name, "offsets"), np.int64)
        self._offsets.append(np.zeros(1, np.int64))
        self._total = 0

    def append(self, values: UInt[np.ndarray, " total"], lengths: Int[np.ndarray, " n"]) -> None:
        """Add rows: their ids one after the other, and their lengths."""
        self._values.append(values)
        self._offsets.append(self._total + np.cumsum(lengths, dtype=np.int64))
        self._total += len(values)

    def close(self) -> None:
        """Close both files."""
        self._values.close()
        self._offsets.close()


def write_dense(
    folder: Path,
    split: str,
    inputs: Shaped[np.ndarray, "n T F"],
    labels: Int32[np.ndarray, " n"] | Int32[np.ndarray, "n T"],
) -> None:
    """Store a dense split that fits into memory."""
    np.save(_file(folder, split, "inputs"), inputs, allow_pickle=False)
    np.save(_file(folder, split, "labels"), labels, allow_pickle=False)


def read_split(folder: Path, split: str) -> Split:
    """A stored split, memory-mapped.

    Raises:
        CacheError: if a file is missing or not what its header says.
    """
    try:
        labels = _mapped(_file(folder, split, "labels"))
        if _file(folder, split, "inputs").exists():
            return Dense(_mapped(_file(folder, split, "inputs")), labels)
        if _file(folder, split, "first.values").exists():
            first, second = (_ragged(folder, f"{split}.{part}", labels) for part in _DOCUMENTS)
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
        for document in _DOCUMENTS
        for part, array in vars(getattr(split, document)).items()
        if part != "labels"
    }
    return arrays | {"labels": split.labels}


def _ragged(folder: Path, name: str, labels: np.ndarray) -> Ragged:
    values, offsets = (_mapped(_file(folder, name, part)) for part in ("values", "offsets"))
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
            written = max(os.stat(path).st_mtime for path in (partial, *partial.rglob("*")))
        except FileNotFoundError:
            continue
        if time.time() - written > ABANDONED_AFTER:
            shutil.rmtree(partial, ignore_errors=True)
