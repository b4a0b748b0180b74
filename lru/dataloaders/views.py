"""Looking at prepared data: rows as text or pictures, and how long rows are."""

import math
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64, Shaped, UInt8
from PIL import Image

from lru.dataloaders.base import Dataset, Prepared
from lru.dataloaders.store.arrays import (
    NO_TARGET,
    Dense,
    Pairs,
    Ragged,
    Split,
    are_of_steps,
    are_values,
    given,
)
from lru.dataloaders.store.card import Card

BINS = 20
_WIDTH = 50
"""Columns of the longest bar."""

_LEAST_SIDE = 256
"""Small pictures are enlarged to at least this many pixels."""

_STEPS_SHOWN = 100
_TOKENS_SHOWN = 40


def class_name(dataset: Dataset, label: int) -> str:
    """The class by its number and, if it has one, its name."""
    names = dataset.class_names
    return f"{label} ({names[label]})" if label < len(names) else str(label)


def label_text(dataset: Dataset, split: Split, index: int) -> str:
    """The label of a row in words; "-" at steps that have none, "(3)" where class 3 is given."""
    label = split.labels[index].tolist()
    if are_of_steps(split.labels):
        return "labels: " + " ".join(map(_target_text, label))
    return (
        f"label: {_target_text(label) if are_values(split.labels) else class_name(dataset, label)}"
    )


def _target_text(target: int | Sequence[float]) -> str:
    if isinstance(target, int):
        if target == NO_TARGET:
            return "-"
        return str(target) if target >= 0 else f"({given(target)})"
    return ",".join("-" if math.isnan(value) else f"{value:g}" for value in target)


def row_text(dataset: Dataset, card: Card, split: Split, index: int) -> Iterator[str]:
    """A row in words: its label, and its tokens or its first values."""
    own = card.targets == "tokens"
    yield f"{card.unit} {index}" if own else label_text(dataset, split, index)
    documents = (split.first, split.second) if isinstance(split, Pairs) else (split,)
    for document in documents:
        row = _row(document, index)
        if row.ndim == 1:
            yield f"{len(row)} tokens:"
            yield decoded(dataset, card, row)
            continue
        yield f"{len(row)} steps, the first:"
        yield from (" ".join(f"{value:g}" for value in step) for step in row[:_STEPS_SHOWN])


def decoded(dataset: Dataset, card: Card, tokens: Shaped[np.ndarray, " T"]) -> str:
    """The text of tokens."""
    vocabulary = card.vocabulary or []
    return dataset.separator.join([vocabulary[token] for token in tokens.tolist()])


def vocabulary_text(vocabulary: Sequence[str]) -> str:
    """The number of tokens, and the first of them: as code if they would not be seen."""
    seen = (token if token.isprintable() and token != " " else ascii(token) for token in vocabulary)
    more = " …" if len(vocabulary) > _TOKENS_SHOWN else ""
    return f"{len(vocabulary):,} ids: " + " ".join(islice(seen, _TOKENS_SHOWN)) + more


def row_picture(dataset: Dataset, split: Split, index: int) -> Image.Image | None:
    """A row as the image that it is, enlarged if it is small; None if it is none."""
    if dataset.picture is None or not isinstance(split, Dense):
        return None
    rows, columns = dataset.picture
    pixels: UInt8[np.ndarray, "rows columns F"] = split.inputs[index].reshape(rows, columns, -1)
    image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])
    scale = -(-_LEAST_SIDE // min(rows, columns))
    return image.resize((columns * scale, rows * scale), Image.Resampling.NEAREST)


def bounds_of(lengths: Int64[np.ndarray, " n"]) -> Float64[np.ndarray, " bounds"]:
    """Bounds of ranges of lengths for a histogram: whole numbers where there are few."""
    low, high = int(lengths.min()), int(lengths.max())
    return np.linspace(low, high + 1, min(BINS, high - low + 1) + 1)


def histogram_text(lengths: Int64[np.ndarray, " n"]) -> Iterator[str]:
    """The number of rows in each range of lengths, in bars of characters."""
    counts, bounds = np.histogram(lengths, bounds_of(lengths))
    for count, low, high in zip(counts, bounds[:-1], bounds[1:], strict=True):
        first, last = int(np.ceil(low)), int(np.ceil(high)) - 1
        bar = "█" * round(_WIDTH * count / counts.max())
        yield f"{first:>7,} to {last:>7,}  {count:>9,}  {bar}"


def histogram_picture(prepared: Prepared, path: Path) -> None:
    """The histograms of the lengths of all splits, as a PNG file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    by_split = {name: split.lengths for name, split in prepared.splits.items()}
    bounds = bounds_of(np.concatenate(list(by_split.values())))
    for name, lengths in by_split.items():
        counts, _ = np.histogram(lengths, bounds)
        axes.stairs(counts / len(lengths), bounds, label=f"{name} ({len(lengths):,} rows)")
    axes.set(title=prepared.card.name, xlabel="steps", ylabel="share of rows", ylim=(0, None))
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _row(split: Dense | Ragged, index: int) -> Shaped[np.ndarray, "T *F"]:
    if isinstance(split, Dense):
        return split.inputs[index]
    return split.values[split.offsets[index] : split.offsets[index + 1]]
