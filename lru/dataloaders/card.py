"""The card: what is known of a prepared data set without opening its arrays."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
from jaxtyping import Float64, Shaped, UInt8

from lru.dataloaders.arrays import NO_TARGET, Dense, Pairs, Split
from lru.dataloaders.cache import checksum, damaged

CARD_NAME = "card.json"

_ROWS_AT_ONCE = 1024

Kind = Literal["tokens", "token_pairs", "values", "text"]


class SplitSummary(TypedDict):
    """Figures of one split; `class_counts[c]` counts rows, or steps if targets are per step.

    The length of a pair is that of its longer document. The classes of a text are its next tokens,
    which are not counted: its `class_counts` are empty.
    """

    examples: int
    min_length: int
    mean_length: float
    max_length: int
    class_counts: list[int]


@dataclass(frozen=True)
class Description:
    """What a data set knows of itself once it is built.

    Attributes:
        kind: "tokens" (ids; 0 is padding), "token_pairs" (two documents of them a row), "values"
            (real features) or "text" (ids without padding, the rows being lines that follow one
            another, without labels: each token is the target of those before).
        n_classes: number of classes.
        targets: "sequence" (one class a row) or "step" (one class at some steps).
        provenance: one sentence: which files, or how generated.
        comparable: one sentence: how numbers compare with published ones.
        vocabulary: the text of each id, id 0 included, or None.
    """

    kind: Kind
    n_classes: int
    targets: Literal["sequence", "step"]
    provenance: str
    comparable: str
    vocabulary: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Card:
    """What is known of a prepared data set without opening its arrays.

    Attributes:
        name: registered name of the data set.
        version: of the code that prepared it; another version prepares again.
        options: the options that it was prepared with.
        kind: "tokens", "token_pairs", "values" or "text".
        n_classes: number of classes.
        vocab_size: number of ids, that of padding included, or None for values.
        n_features: features a step, or None for tokens.
        targets: "sequence" or "step".
        max_length: longest row of all splits, in steps; of pairs, the longest document.
        mean: per feature over train, of bytes scaled to [0, 1] and of other numbers as they are;
            None for tokens.
        std: standard deviation, likewise.
        vocabulary: the text of each id, or None.
        splits: figures by split.
        provenance: one sentence: which files, or how generated.
        comparable: one sentence: how numbers compare with published ones.
        raw_files: what each file or folder that was read is known by (`stamps`), by relative path.
        checksum: sha256 over all arrays.
    """

    name: str
    version: int
    options: dict[str, Any] = field(default_factory=dict)
    kind: Kind
    n_classes: int
    vocab_size: int | None = None
    n_features: int | None = None
    targets: Literal["sequence", "step"]
    max_length: int
    mean: list[float] | None = None
    std: list[float] | None = None
    vocabulary: list[str] | None = None
    splits: dict[str, SplitSummary] = field(default_factory=dict)
    provenance: str = ""
    comparable: str = ""
    raw_files: dict[str, list[int]] = field(default_factory=dict)
    checksum: str = ""


def make_card(description: Description, splits: Mapping[str, Split], **identity: Any) -> Card:
    """The card of `splits`.

    Args:
        description: what the data set says of itself.
        splits: all of them, "train" among them.
        identity: `name`, `version`, `options` and `raw_files` of the card.

    Raises:
        ValueError: if a split has no rows.
    """
    for name, split in splits.items():
        if not len(split):
            raise ValueError(f"{identity['name']}: split {name!r} has no rows")
    train = splits["train"]
    facts = asdict(description)
    vocabulary = description.vocabulary
    facts["vocabulary"] = None if vocabulary is None else list(vocabulary)
    counted = 0 if description.kind == "text" else description.n_classes
    summaries = {name: _summary(split, counted) for name, split in splits.items()}
    mean, std = _moments(train) if isinstance(train, Dense) else (None, None)
    return Card(
        **identity,
        **facts,
        vocab_size=None if vocabulary is None else len(vocabulary),
        n_features=train.inputs.shape[2] if isinstance(train, Dense) else None,
        max_length=max(summary["max_length"] for summary in summaries.values()),
        mean=mean,
        std=std,
        splits=summaries,
        checksum=checksum(splits),
    )


def write_card(card: Card, folder: Path) -> None:
    """Store the card in `folder`."""
    text = json.dumps(asdict(card), indent=1)
    (folder / CARD_NAME).write_text(text + "\n", encoding="utf-8")


def read_card(folder: Path) -> Card:
    """The card in `folder`.

    Raises:
        CacheError: if there is none, or it is not one.
    """
    try:
        return Card(**json.loads((folder / CARD_NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise damaged(folder, f"{CARD_NAME} cannot be read ({error})") from error


def check_contents(card: Card, splits: Mapping[str, Split]) -> None:
    """Check what a checksum cannot: that ids and labels are among those of the card.

    Raises:
        ValueError: naming the split and what is wrong.
    """
    for name, split in splits.items():
        if card.kind != "text":
            _check_labels(card, f"{card.name}, {name}", split)
        documents = (split.first, split.second) if isinstance(split, Pairs) else (split,)
        for document in documents:
            if isinstance(document, Dense) or not document.values.size:
                continue
            low, high = int(document.values.min()), int(document.values.max())
            first, last = int(card.kind != "text"), (card.vocab_size or 0) - 1
            if low < first or high > last:
                raise ValueError(
                    f"{card.name}, {name}: ids are {low} to {high}, but those of tokens are "
                    f"{first} to {last}"
                )


def _check_labels(card: Card, where: str, split: Split) -> None:
    """Check that there is a class a row, or a class or none a step."""
    by_step = card.targets == "step"
    labels = split.labels
    if labels.ndim != 1 + by_step:
        raise ValueError(
            f"{where}: labels have shape {labels.shape}, but the targets are one a {card.targets}"
        )
    least = NO_TARGET if by_step else 0
    if labels.min(initial=0) < least or labels.max(initial=0) >= card.n_classes:
        or_none = f", or {NO_TARGET} where a step has none" if by_step else ""
        raise ValueError(f"{where}: labels are not all 0 to {card.n_classes - 1}{or_none}")
    if by_step:
        beyond = np.arange(labels.shape[1]) >= split.lengths[:, None]
        if (labels[beyond] != NO_TARGET).any():
            raise ValueError(f"{where}: there are labels beyond the ends of rows")


def _summary(split: Split, n_classes: int) -> SplitSummary:
    lengths = split.lengths
    labels = split.labels[split.labels >= 0]
    return SplitSummary(
        examples=len(split),
        min_length=int(lengths.min()),
        mean_length=float(lengths.mean()),
        max_length=int(lengths.max()),
        class_counts=np.bincount(labels, minlength=n_classes).tolist(),
    )


def _moments(split: Dense) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per feature; bytes scaled to [0, 1]."""
    if split.inputs.dtype == np.uint8:
        return _moments_of_bytes(split.inputs)
    return _moments_of_numbers(split.inputs)


def _moments_of_bytes(inputs: UInt8[np.ndarray, "n T F"]) -> tuple[list[float], list[float]]:
    """Exact, from how often each byte occurs: ten times faster than sums of numbers."""
    counts = np.zeros((inputs.shape[2], 256), np.int64)
    for start in range(0, len(inputs), _ROWS_AT_ONCE):
        part = inputs[start : start + _ROWS_AT_ONCE]
        for feature, count in enumerate(counts):
            count += np.bincount(part[..., feature].ravel(), minlength=256)
    share, values = counts / counts.sum(axis=1, keepdims=True), np.arange(256) / 255
    mean = share @ values
    deviation = (share * (values - mean[:, None]) ** 2).sum(axis=1)
    return mean.tolist(), np.sqrt(deviation).tolist()


def _moments_of_numbers(inputs: Shaped[np.ndarray, "n T F"]) -> tuple[list[float], list[float]]:
    """Two passes in float64."""

    def mean_of(centre: Float64[np.ndarray, " F"], power: int) -> Float64[np.ndarray, " F"]:
        total = np.zeros(inputs.shape[2])
        for start in range(0, len(inputs), _ROWS_AT_ONCE):
            part = inputs[start : start + _ROWS_AT_ONCE].astype(np.float64)
            total += ((part - centre) ** power).sum((0, 1))
        return total / (len(inputs) * inputs.shape[1])

    mean = mean_of(np.zeros(inputs.shape[2]), 1)
    return mean.tolist(), np.sqrt(mean_of(mean, 2)).tolist()
