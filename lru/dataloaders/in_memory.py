"""Data of your own, without files: arrays or a torch data set, as a prepared data set in memory.

A data set that flags can name is a `Dataset` in a file of its own; see docs/data.md.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lru.dataloaders.base import Prepared
from lru.dataloaders.store.arrays import (
    NO_TARGET,
    Dense,
    Ragged,
    Split,
    are_of_steps,
    are_values,
    no_target,
)
from lru.dataloaders.store.card import Description, Targets, make_card

Examples = tuple[np.ndarray | Sequence[Any], np.ndarray | Sequence[Any]]
"""Inputs and labels, row by row."""


def from_arrays(
    name: str,
    train: Examples,
    val: Examples | None = None,
    test: Examples | None = None,
    *,
    extra: Mapping[str, Examples] | None = None,
    vocabulary: Sequence[str] | None = None,
    n_classes: int | None = None,
    held_out: float = 0.1,
    seed: int = 0,
) -> Prepared:
    """Arrays as a data set, ready to train on.

    Inputs are tokens if they are whole numbers without an axis of features: an array `[n, T]`, or
    a list of rows of any lengths. They are real values if they are floats `[n, T]`, or floats or
    bytes `[n, T, F]`, or a list of such rows of any lengths; bytes are scaled to [0, 1].

    Labels are classes if they are whole numbers, from 0 on: one a row `[n]`, or one a step with -1
    where there is none: `[n, T]`, or a list of rows as long as those of inputs. They are values to
    be predicted if they are floats: one number a row `[n]`, K of them `[n, K]`, or K a step with
    NaN where there is none: `[n, T, K]`, or a list of rows `[T, K]` as long as those of inputs.

    What an array has beyond the end of a row is not looked at.

    Args:
        name: what to call the data.
        train: inputs and labels.
        val: the same to validate on; None cuts them from train.
        test: the same to test on; None cuts them from train.
        extra: further splits to evaluate on, by name.
        vocabulary: text of each token, from 0 on; None for the numbers up to the largest.
        n_classes: number of classes; None for the labels up to the largest. Values have none.
        held_out: share of train that becomes each missing split.
        seed: of the choice of these rows.

    Raises:
        ValueError: if something has another shape, type or range than the rest.
    """
    usual = {"train": train, "val": val, "test": test}
    for split, rows in {**usual, **(extra or {})}.items():
        left_out = rows is None and split in ("val", "test")
        if not left_out and not (isinstance(rows, tuple | list) and len(rows) == 2):
            raise ValueError(f"{name}: {split} must be (inputs, labels), got {type(rows).__name__}")
    if taken := [split for split in extra or {} if split in usual]:
        raise ValueError(f"{name}: extra must not have {' or '.join(usual)}, got {taken[0]}")
    given = {**_cut(name, usual, held_out, seed), **(extra or {})}
    splits = {split: _split(f"{name}: {split}", *rows) for split, rows in given.items()}
    forms = {(split.blank.shape, *_form(split.labels)) for split in splits.values()}
    if len(forms) > 1:
        raise ValueError(
            f"{name}: all splits must be tokens, or values of as many features, with labels alike"
        )
    ((features, targets, _),) = forms
    if not features:
        vocabulary = _vocabulary(name, splits.values(), vocabulary)
    elif not all(isinstance(split, Dense) for split in splits.values()):
        splits = {split: _as_ragged(rows) for split, rows in splits.items()}
    description = Description(
        kind="values" if features else "tokens",
        n_classes=_n_classes(name, splits.values(), n_classes),
        targets=targets,
        provenance="Arrays in memory.",
        comparable="Comparable with results on the same arrays.",
        vocabulary=None if vocabulary is None else tuple(vocabulary),
    )
    return Prepared(make_card(description, splits, name=name, version=1), splits)


def from_torch(
    name: str,
    train: Any,
    val: Any = None,
    test: Any = None,
    *,
    extra: Mapping[str, Any] | None = None,
    **more: Any,
) -> Prepared:
    """Any `torch.utils.data.Dataset`, read into memory once.

    Items are `(x, y)`, or `(x, y, length)` with x, and labels of steps, padded on the right. x is
    what `from_arrays` takes as a row: whole numbers `[T]`, floats `[T]`, or floats or bytes
    `[T, F]`; y is what it takes as the labels of a row.

    Args:
        name: what to call the data.
        train: the examples to train on.
        val: to validate on; None cuts them from train.
        test: to test on; None cuts them from train.
        extra: further ones to evaluate on, by the name of their split.
        more: as for `from_arrays`.

    Raises:
        ValueError: if an item is something else.
    """
    usual = {
        split: None if dataset is None else _items(f"{name}: {split}", dataset)
        for split, dataset in {"train": train, "val": val, "test": test}.items()
    }
    read = {split: _items(f"{name}: {split}", dataset) for split, dataset in (extra or {}).items()}
    return from_arrays(name, **usual, extra=read, **more)


def _items(where: str, dataset: Any) -> Examples:
    inputs, labels = [], []
    for item in _iterate(dataset):
        if not isinstance(item, tuple | list) or len(item) not in (2, 3):
            raise ValueError(
                f"{where}: items must be (x, y) or (x, y, length), got {type(item).__name__}"
                + (f" of {len(item)}" if isinstance(item, tuple | list) else "")
            )
        x, y = np.asarray(item[0]), np.asarray(item[1])
        steps = slice(int(item[2]) if len(item) == 3 else None)
        inputs.append(x[steps])
        labels.append(y[steps] if y.ndim else y)
    return inputs, labels


def _iterate(dataset: Any) -> Iterator[Any]:
    """The items; torch's data sets with a length need not end their own iteration."""
    if hasattr(dataset, "__len__"):
        return (dataset[i] for i in range(len(dataset)))
    return iter(dataset)


def _cut(
    name: str, given: dict[str, Examples | None], held_out: float, seed: int
) -> dict[str, Examples]:
    """Fill the missing splits up with rows of train."""
    missing = [split for split, examples in given.items() if examples is None]
    present = {split: examples for split, examples in given.items() if examples is not None}
    if not missing:
        return present
    inputs, labels = present["train"]
    _check_as_many(f"{name}: train", inputs, labels)
    size = round(held_out * len(labels))
    if not 0 < size * len(missing) < len(labels):
        raise ValueError(
            f"{name}: held_out is {held_out}, but must leave at least one of the {len(labels)} "
            f"rows to train and to {' and '.join(missing)} each"
        )
    order = np.random.default_rng(seed).permutation(len(labels))
    parts = np.split(order, np.arange(1, len(missing) + 1) * size)
    for split, rows in zip([*missing, "train"], parts, strict=True):
        present[split] = (_take(inputs, rows), _take(labels, rows))
    return {split: present[split] for split in given}


def _take(part: np.ndarray | Sequence[Any], rows: np.ndarray) -> np.ndarray | list[Any]:
    return part[rows] if isinstance(part, np.ndarray) else [part[row] for row in rows]


def _split(where: str, inputs: Any, labels: Any) -> Split:
    _check_as_many(where, inputs, labels)
    try:
        labels = _label_array(inputs, labels)
        if labels.size == 0:
            raise ValueError("there are no rows, or no labels")
        labels = _checked(labels)
        rows = [np.asarray(row) for row in inputs]
        if any(row.ndim == 0 for row in rows):
            raise ValueError(
                "inputs must be sequences, [n, T] or [n, T, F] or a list of rows, got "
                f"{np.asarray(inputs).dtype} of shape {np.shape(inputs)}"
            )
        filled = [row for row in rows if row.size] or rows
        if all(row.ndim == 1 and np.issubdtype(row.dtype, np.integer) for row in filled):
            return _ragged(_tokens(rows), rows, labels)
        if len({len(row) for row in rows}) == 1:
            _check_features(rows)
            return Dense(_values(np.asarray(inputs), 2), labels)
        _check_features(filled)
        return _ragged(_values(_concatenated(rows), 1), rows, labels)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _checked(labels: np.ndarray) -> np.ndarray:
    """Labels in the type in which they are stored."""
    if labels.dtype.kind == "f":
        return (labels[:, None] if labels.ndim == 1 else labels).astype(np.float32)
    if labels.dtype.kind not in "iu":
        raise ValueError(f"labels must be whole numbers or floats, got {labels.dtype}")
    if labels.min() < (0 if labels.ndim == 1 else NO_TARGET):
        raise ValueError(f"labels must be at least 0, got {labels.min()}")
    return labels.astype(np.int32)


def _check_as_many(where: str, inputs: Any, labels: Any) -> None:
    if len(inputs) != len(labels):
        raise ValueError(f"{where}: there are {len(inputs)} inputs, but {len(labels)} labels")


def _label_array(inputs: Any, labels: Any) -> np.ndarray:
    """The labels; rows of several lengths are padded to the longest."""
    if isinstance(labels, np.ndarray) or len({np.shape(row) for row in labels}) < 2:
        return np.asarray(labels)
    rows = [np.asarray(row) for row in labels]
    for number, (row, label) in enumerate(zip(inputs, rows, strict=True)):
        if label.shape[:1] != (len(row),) or label.shape[1:] != rows[0].shape[1:]:
            raise ValueError(
                f"labels of row {number} have shape {label.shape}, but must be one a step like "
                f"others, and it has {len(row)} steps"
            )
    flat = _concatenated(rows)
    if flat.ndim == 1 and flat.dtype.kind == "f":
        raise ValueError("labels that are values, one a step, must be rows of shape [T, K]")
    lengths = np.array([len(row) for row in rows])
    shape = (len(rows), lengths.max(), *flat.shape[1:])
    padded = np.full(shape, no_target(flat), np.result_type(flat, np.int8))
    padded[_has_step(lengths, padded.shape[1])] = flat
    return padded


def _tokens(rows: list[np.ndarray]) -> np.ndarray:
    """All rows in one, in the smallest type."""
    tokens = _concatenated(rows)
    if tokens.min(initial=0) < 0:
        raise ValueError("tokens must be whole numbers of at least 0, one a step")
    return tokens.astype(np.min_scalar_type(tokens.max(initial=0)))


def _ragged(values: np.ndarray, rows: list[np.ndarray], labels: np.ndarray) -> Ragged:
    """Rows as long as `rows`, with no labels beyond their ends."""
    lengths = np.array([len(row) for row in rows])
    if are_of_steps(labels):
        labels = labels[:, : lengths.max()].copy()
        labels[~_has_step(lengths, labels.shape[1])] = no_target(labels)
    return Ragged(values, np.cumsum([0, *lengths], dtype=np.int64), labels)


def _as_ragged(split: Split) -> Split:
    if not isinstance(split, Dense):
        return split
    rows, steps, features = split.inputs.shape
    offsets = steps * np.arange(rows + 1, dtype=np.int64)
    return Ragged(split.inputs.reshape(-1, features), offsets, split.labels)


def _concatenated(rows: list[np.ndarray]) -> np.ndarray:
    """All rows in one; an empty one, which is of floats unless stated, has no say in the type."""
    return np.concatenate([row for row in rows if row.size] or [np.zeros(0, np.uint8)])


def _has_step(lengths: np.ndarray, width: int) -> np.ndarray:
    """Mask of the steps that each row has, `[n, width]`."""
    return np.arange(width) < lengths[:, None]


def _check_features(rows: list[np.ndarray]) -> None:
    shapes = sorted({row.shape[1:] for row in rows})
    if len(shapes) > 1:
        raise ValueError(
            f"rows of values must have as many features, got {shapes[0]}, {shapes[-1]}"
        )


def _values(given: np.ndarray, axes: int) -> np.ndarray:
    """Values with `axes` axes before that of features, in the type in which they are stored."""
    values = given[..., None] if given.ndim == axes else given
    if values.ndim != axes + 1 or not (values.dtype == np.uint8 or values.dtype.kind == "f"):
        letters = ("[n, T]", "[n, T, F]") if axes == 2 else ("[T]", "[T, F]")
        raise ValueError(
            f"values must be floats {letters[0]}, or floats or bytes {letters[1]}, got "
            f"{given.dtype} of shape {given.shape}"
        )
    return values if values.dtype == np.uint8 else values.astype(np.float32)


def _form(labels: np.ndarray) -> tuple[Targets, int]:
    """Kind of targets that labels are, and the number of values of one."""
    if are_values(labels):
        return "values_per_step" if are_of_steps(labels) else "values", labels.shape[-1]
    return "class_per_step" if are_of_steps(labels) else "class", 0


def _n_classes(name: str, splits: Iterable[Split], n_classes: int | None) -> int:
    largest = -1
    for split in splits:
        if are_values(split.labels):
            if n_classes is not None:
                raise ValueError(f"{name}: n_classes is {n_classes}, but labels are values")
            return 0
        largest = max(largest, int(split.labels.max()))
    if n_classes is not None and largest >= n_classes:
        raise ValueError(f"{name}: n_classes is {n_classes}, but there is a label {largest}")
    return largest + 1 if n_classes is None else n_classes


def _vocabulary(
    name: str, splits: Iterable[Split], vocabulary: Sequence[str] | None
) -> tuple[str, ...]:
    largest = max(int(split.values.max(initial=0)) for split in splits if isinstance(split, Ragged))
    if vocabulary is None:
        return tuple(map(str, range(largest + 1)))
    if largest >= len(vocabulary):
        raise ValueError(
            f"{name}: vocabulary has {len(vocabulary)} entries, but there is a token {largest}"
        )
    return tuple(vocabulary)
