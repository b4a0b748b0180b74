"""Writers of splits in the cache, chunk by chunk: memory is needed for one chunk only."""

from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Int, Integer, Shaped, UInt

from lru.dataloaders.store.cache import DOCUMENTS, file_of

_HEADER_BYTES = 128


W = TypeVar("W", bound="Writer")


class Writer:
    """Base of the writers: closed with all of its parts at the end of a `with` block."""

    def __init__(self, *parts: "Writer"):
        self._parts = parts

    def close(self) -> None:
        """Write what is left, and close all files."""
        for part in self._parts:
            part.close()

    def __enter__(self: W) -> W:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ArrayWriter(Writer):
    """A `.npy` file written piece by piece along its first axis, so that it needs no memory.

    Args:
        path: file to create.
        dtype: stored type.
        row_shape: shape of one entry along the first axis.
    """

    def __init__(self, path: Path, dtype: np.typing.DTypeLike, row_shape: tuple[int, ...] = ()):
        super().__init__()
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


class RaggedWriter(Writer):
    """One ragged split, written a chunk of rows at a time.

    Args:
        folder: where the split's files go.
        split: name of the split.
        dtype: type of the token ids, or of the values.
        steps: steps of the longest row if targets are per step, else None.
        n_features: number F of values a step; None for tokens.
        n_targets: number K of values of a target; None if targets are classes.
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        dtype: np.typing.DTypeLike,
        steps: int | None = None,
        *,
        n_features: int | None = None,
        n_targets: int | None = None,
    ):
        self._rows = _RowWriter(folder, split, dtype, n_features)
        self._labels = _label_writer(folder, split, steps, n_targets)
        super().__init__(self._rows, self._labels)

    def append(
        self,
        values: Shaped[np.ndarray, "total *F"],
        lengths: Int[np.ndarray, " n"],
        labels: Shaped[np.ndarray, "n ..."],
    ) -> None:
        """Add rows: their steps one after the other, their lengths and their labels."""
        self._rows.append(values, lengths)
        self._labels.append(labels)


class DenseWriter(Writer):
    """One dense split, written a chunk of rows at a time.

    Args:
        folder: where the split's files go.
        split: name of the split.
        dtype: type of the inputs.
        row_shape: steps and features of a row.
        per_step: targets are one a step, not one a row.
        n_targets: number K of values of a target; None if targets are classes.
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        dtype: np.typing.DTypeLike,
        row_shape: tuple[int, int],
        *,
        per_step: bool = False,
        n_targets: int | None = None,
    ):
        self._inputs = ArrayWriter(file_of(folder, split, "inputs"), dtype, row_shape)
        self._labels = _label_writer(folder, split, row_shape[0] if per_step else None, n_targets)
        super().__init__(self._inputs, self._labels)

    def append(
        self, inputs: Shaped[np.ndarray, "n T F"], labels: Shaped[np.ndarray, "n ..."]
    ) -> None:
        """Add rows and their labels."""
        self._inputs.append(inputs)
        self._labels.append(labels)


class PairWriter(Writer):
    """One split of pairs of documents, written a chunk of rows at a time.

    Args:
        folder: where the split's files go.
        split: name of the split.
        dtype: type of the token ids.
    """

    def __init__(self, folder: Path, split: str, dtype: np.typing.DTypeLike):
        self._first, self._second = (
            _RowWriter(folder, f"{split}.{document}", dtype) for document in DOCUMENTS
        )
        self._labels = ArrayWriter(file_of(folder, split, "labels"), np.int32)
        super().__init__(self._first, self._second, self._labels)

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


def _label_writer(
    folder: Path, split: str, steps: int | None, n_targets: int | None
) -> ArrayWriter:
    dtype = np.int32 if n_targets is None else np.float32
    row_shape = tuple(size for size in (steps, n_targets) if size is not None)
    return ArrayWriter(file_of(folder, split, "labels"), dtype, row_shape)


class _RowWriter(Writer):
    """Rows of any length: `NAME.values.npy` and `NAME.offsets.npy`."""

    def __init__(
        self,
        folder: Path,
        name: str,
        dtype: np.typing.DTypeLike,
        n_features: int | None = None,
    ):
        row_shape = () if n_features is None else (n_features,)
        self._values = ArrayWriter(file_of(folder, name, "values"), dtype, row_shape)
        self._offsets = ArrayWriter(file_of(folder, name, "offsets"), np.int64)
        self._offsets.append(np.zeros(1, np.int64))
        super().__init__(self._values, self._offsets)
        self._total = 0

    def append(
        self, values: Shaped[np.ndarray, "total *F"], lengths: Int[np.ndarray, " n"]
    ) -> None:
        """Add rows: their steps one after the other, and their lengths."""
        self._values.append(values)
        self._offsets.append(self._total + np.cumsum(lengths, dtype=np.int64))
        self._total += len(values)
