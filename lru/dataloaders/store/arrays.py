"""Splits as plain arrays: dense `[n, T, F]`, ragged rows one after the other, or pairs of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, SupportsIndex

import numpy as np
from jaxtyping import Float32, Int, Int16, Int32, Int64, Shaped, UInt, UInt8

NO_TARGET = -1
"""The label of a step that has no class; one that has no values has NaN."""

Rows = Int[np.ndarray, " B"] | Sequence[int]
Classes = Int32[np.ndarray, " n"] | Int32[np.ndarray, "n T"]
Labels = Classes | Float32[np.ndarray, "n K"] | Float32[np.ndarray, "n T K"]
LabelsOfRows = (
    Int32[np.ndarray, " B"]
    | Int32[np.ndarray, "B length"]
    | Float32[np.ndarray, "B K"]
    | Float32[np.ndarray, "B length K"]
)


def are_values(labels: Any) -> bool:
    """True for values `[n, K]` or `[n, T, K]`, which are floats; False for classes."""
    return labels.dtype.kind == "f"


def are_of_steps(labels: Any) -> bool:
    """True for labels of steps, classes `[n, T]` or values `[n, T, K]`; False for those of rows."""
    return labels.ndim == 2 + are_values(labels)


def given(classes: Any) -> Any:
    """Labels of steps whose classes are known, but not to be predicted: -2 for class 0, and below.

    It undoes itself: of such labels it gives the classes.

    Args:
        classes: one, or an array of them.
    """
    return -2 - classes


def no_target(labels: Any) -> float | int:
    """The label of a step that has none, among labels such as these."""
    return np.nan if are_values(labels) else NO_TARGET


@dataclass(frozen=True, eq=False)
class Dense:
    """Rows of one length.

    Attributes:
        inputs: `[n, T, F]`, uint8, int16 or float32.
        labels: `[n]` a class per row, or `[n, T]` a class per step with -1 where there is none and
            `given(class)` where it is not to be predicted; `[n, K]` or `[n, T, K]` values instead,
            with NaN where there are none.
    """

    inputs: UInt8[np.ndarray, "n T F"] | Int16[np.ndarray, "n T F"] | Float32[np.ndarray, "n T F"]
    labels: Labels

    def __post_init__(self):
        _check_labels(self.labels, self.inputs.shape[0], self.inputs.shape[1])

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def lengths(self) -> Int64[np.ndarray, " n"]:
        """Steps in each row, `[n]`."""
        return np.full(len(self), self.inputs.shape[1], np.int64)

    @property
    def blank(self) -> Shaped[np.ndarray, " F"]:
        """Inputs at a step of padding, in the stored dtype: zeros, `[F]`."""
        return np.zeros(self.inputs.shape[2:], self.inputs.dtype)

    def padded(self, indices: Rows, length: SupportsIndex) -> Shaped[np.ndarray, "B length F"]:
        """The rows at `indices`, zeros on the right up to `length` steps, in the stored dtype.

        Raises:
            ValueError: if `length` is shorter than the rows.
        """
        rows = np.asarray(indices, np.int64)
        steps = self.inputs.shape[1]
        length = _checked_length(length, steps if len(rows) else 0)
        chosen = self.inputs[rows]
        if length == steps:
            return chosen
        return np.pad(chosen, ((0, 0), (0, length - steps), (0, 0)))

    def labels_of(self, indices: Rows, length: SupportsIndex) -> LabelsOfRows:
        """Labels of the rows; those of steps are `length` many, with none beyond the rows' ends.

        Raises:
            ValueError: if labels are per step and `length` is shorter than the rows.
        """
        rows = np.asarray(indices, np.int64)
        return _labels_of(self.labels, rows, length, self.inputs.shape[1] if len(rows) else 0)


@dataclass(frozen=True, eq=False)
class Ragged:
    """Rows of any length: row `i` is `values[offsets[i]:offsets[i + 1]]`.

    Attributes:
        values: `[total]` token ids, the smallest unsigned type that holds them, where 0 is padding;
            or `[total, F]` real values, uint8, int16 or float32.
        offsets: `[n + 1]` int64, from 0 to `total`.
        labels: `[n]` a class per row, or `[n, T]` a class per step of the longest row,
            with -1 where there is none and `given(class)` where it is not to be predicted;
            `[n, K]` or `[n, T, K]` values instead, with NaN where there are none. The lines of a
            text all have -1.
    """

    values: (
        UInt[np.ndarray, " total"]
        | UInt8[np.ndarray, "total F"]
        | Int16[np.ndarray, "total F"]
        | Float32[np.ndarray, "total F"]
    )
    offsets: Int64[np.ndarray, " n_plus_1"]
    labels: Labels

    def __post_init__(self):
        if len(self.offsets) == 0 or self.offsets[0] != 0 or self.offsets[-1] != len(self.values):
            raise ValueError(f"offsets must run from 0 to the {len(self.values)} values")
        longest = int(self.lengths.max(initial=0)) if are_of_steps(self.labels) else 0
        _check_labels(self.labels, len(self), longest)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Int64[np.ndarray, " n"]:
        """Steps in each row, `[n]`."""
        return np.diff(self.offsets)

    @property
    def blank(self) -> Shaped[np.ndarray, "*F"]:
        """Inputs at a step of padding, in the stored dtype: a 0, `[]`, or zeros, `[F]`."""
        return np.zeros(self.values.shape[1:], self.values.dtype)

    def padded(
        self, indices: Rows, length: SupportsIndex
    ) -> UInt[np.ndarray, "B length"] | Shaped[np.ndarray, "B length F"]:
        """The rows at `indices`, zeros on the right up to `length` steps, in the stored dtype.

        Raises:
            ValueError: if `length` is shorter than the longest chosen row.
        """
        rows = np.asarray(indices, np.int64)
        first, lengths = self._bounds(rows)
        length = _checked_length(length, int(lengths.max(initial=0)))
        out = np.zeros((len(rows), length, *self.values.shape[1:]), self.values.dtype)
        # One copy of a contiguous slice a row: 0.6 µs; gathering by index arrays instead is 2 to 6
        # times slower at the lengths that sequences have here (500 steps and more).
        values = self.values
        for row, start, steps in zip(out, first.tolist(), lengths.tolist(), strict=True):
            row[:steps] = values[start : start + steps]
        return out

    def labels_of(self, indices: Rows, length: SupportsIndex) -> LabelsOfRows:
        """Labels of the rows; those of steps are `length` many, with none beyond the rows' ends.

        Raises:
            ValueError: if labels are per step and `length` is shorter than the longest chosen row.
        """
        rows = np.asarray(indices, np.int64)
        _, lengths = self._bounds(rows)
        return _labels_of(self.labels, rows, length, int(lengths.max(initial=0)))

    def _bounds(
        self, rows: Int64[np.ndarray, " B"]
    ) -> tuple[Int64[np.ndarray, " B"], Int64[np.ndarray, " B"]]:
        starts, stops = self.offsets[:-1], self.offsets[1:]
        first = starts[rows]
        return first, stops[rows] - first


@dataclass(frozen=True, eq=False)
class Pairs:
    """Two documents of tokens a row, of any lengths each, with one label for both.

    Attributes:
        first: the first document of each row.
        second: the second document of each row, with the same labels.
    """

    first: Ragged
    second: Ragged

    def __post_init__(self):
        if len(self.first) != len(self.second):
            raise ValueError(
                f"there are {len(self.first)} first and {len(self.second)} second documents, "
                "but they must be as many"
            )
        if self.first.labels.ndim != 1 or not np.array_equal(self.first.labels, self.second.labels):
            raise ValueError("both documents of a row must have the same one label")

    def __len__(self) -> int:
        return len(self.first)

    @property
    def labels(self) -> Int32[np.ndarray, " n"]:
        """A class per row, `[n]`."""
        return self.first.labels

    @property
    def lengths(self) -> Int64[np.ndarray, " n"]:
        """Steps of the longer document of each row, `[n]`."""
        return np.maximum(self.first.lengths, self.second.lengths)

    @property
    def blank(self) -> UInt[np.ndarray, ""]:
        """Inputs at a step of padding, in the stored dtype: a 0, `[]`."""
        return self.first.blank

    def lengths_of(self, indices: Rows) -> Int64[np.ndarray, "B 2"]:
        """Steps of both documents of the rows at `indices`, `[B, 2]`."""
        rows = np.asarray(indices, np.int64)
        return np.stack([self.first.lengths[rows], self.second.lengths[rows]], axis=1)

    def padded(self, indices: Rows, length: SupportsIndex) -> UInt[np.ndarray, "B 2 length"]:
        """Both documents of the rows at `indices`, zeros on the right up to `length` steps each.

        Raises:
            ValueError: if `length` is shorter than the longest chosen document.
        """
        documents = [self.first.padded(indices, length), self.second.padded(indices, length)]
        return np.stack(documents, axis=1)

    def labels_of(self, indices: Rows, length: SupportsIndex) -> Int32[np.ndarray, " B"]:
        """Labels of the rows, `[B]`, whatever the `length`."""
        return self.first.labels_of(indices, length)


Split = Dense | Ragged | Pairs


def _check_labels(labels: np.ndarray, rows: int, steps: int) -> None:
    expected = (rows, steps) if are_of_steps(labels) else (rows,)
    values = are_values(labels)
    if labels.ndim != len(expected) + values or labels.shape[: len(expected)] != expected:
        needed = f"({', '.join(map(str, (*expected, 'K')))})" if values else expected
        raise ValueError(f"labels have shape {labels.shape}, but the rows need {needed}")


def _checked_length(length: SupportsIndex, longest: int) -> int:
    length = length.__index__()
    if length < longest:
        raise ValueError(f"length {length} is shorter than the longest chosen row ({longest})")
    return length


def _labels_of(
    labels: np.ndarray, rows: np.ndarray, length: SupportsIndex, longest: int
) -> np.ndarray:
    """Labels of the rows, of which the longest has `longest` steps, cut or padded to `length`."""
    chosen = labels[rows]
    if not are_of_steps(labels):
        return chosen
    chosen = chosen[:, : _checked_length(length, longest)]
    beyond = length.__index__() - chosen.shape[1]
    widths = ((0, 0), (0, beyond), (0, 0))[: labels.ndim]
    return np.pad(chosen, widths, constant_values=no_target(labels))
