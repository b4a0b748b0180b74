"""The card: what is known of a prepared data set without opening its arrays."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
from jaxtyping import Float64, Shaped, UInt8

from lru.dataloaders.store.arrays import (
    NO_TARGET,
    Dense,
    Pairs,
    Split,
    are_of_steps,
    are_values,
    given,
)
from lru.dataloaders.store.cache import checksum, damaged

CARD_NAME = "card.json"

_ROWS_AT_ONCE, _STEPS_AT_ONCE = 1024, 2**18

Kind = Literal["tokens", "token_pairs", "values", "text"]
Targets = Literal["class", "class_per_step", "values", "values_per_step", "tokens"]

LABELS: Mapping[Targets, str] = {
    "class": "classes [n]",
    "class_per_step": "classes [n, T]",
    "values": "values [n, K]",
    "values_per_step": "values [n, T, K]",
    "tokens": "classes [n]",
}
"""The labels of a split, by its targets; those where tokens are the targets are -1."""

_FORMER_TARGETS = {"sequence": "class", "step": "class_per_step"}
"""Targets of cards written before they had types, those of a text aside."""


class SplitSummary(TypedDict):
    """Figures of one split; `class_counts[c]` counts rows, or steps if targets are per step.

    The length of a pair is that of its longer document. If targets are values or next tokens there
    are no classes to count, and `class_counts` is empty.
    """

    examples: int
    min_length: int
    mean_length: float
    max_length: int
    class_counts: list[int]


@dataclass(frozen=True)
class Description:
    """Facts that a data set knows of itself once it is built.

    Attributes:
        kind: "tokens" (ids; 0 is padding), "token_pairs" (two documents of them a row), "values"
            (real features) or "text" (ids without padding, the rows being lines that follow one
            another, without labels: each token is the target of those before).
        n_classes: number of classes, or of the tokens of a text; 0 if targets are values.
        targets: "class" (one a row), "class_per_step" (one at some steps), "values" (a vector a
            row), "values_per_step" (a vector at some steps) or "tokens" (the next of a text; of
            rows, their own).
        provenance: one sentence: which files, or how generated.
        comparable: one sentence: how numbers compare with published ones.
        vocabulary: the text of each id, id 0 included, or None.
        groups: numbers of rows of the groups that train consists of, one after the other; each
            batch to train on then draws as many rows of each. None to read all rows in turn.
    """

    kind: Kind
    n_classes: int
    targets: Targets
    provenance: str
    comparable: str
    vocabulary: tuple[str, ...] | None = None
    groups: tuple[int, ...] | None = None

    def __post_init__(self):
        if self.targets not in LABELS:
            raise ValueError(f"targets must be one of {', '.join(LABELS)}, got {self.targets!r}")
        if (self.kind == "text" and self.targets != "tokens") or (
            self.targets == "tokens" and self.kind not in ("text", "tokens")
        ):
            raise ValueError(
                "targets must be tokens for a text, and only for a text or rows of tokens, got "
                f"{self.targets!r} for {self.kind}"
            )


@dataclass(frozen=True, kw_only=True)
class Card:
    """Facts of a prepared data set that are known without opening its arrays.

    Attributes:
        name: registered name of the data set.
        version: of the code that prepared it; another version prepares again.
        options: the options that it was prepared with.
        kind: "tokens", "token_pairs", "values" or "text".
        n_classes: number of classes, or of the tokens of a text; 0 if targets are values.
        n_targets: number K of values of a target; 0 if targets are no values.
        vocab_size: number of ids, that of padding included, or None for values.
        n_features: features a step, or None for tokens.
        targets: "class", "class_per_step", "values", "values_per_step" or "tokens".
        max_length: longest row of all splits, in steps; of pairs, the longest document.
        mean: per feature over train, of bytes scaled to [0, 1] and of other numbers as they are;
            None for tokens.
        std: standard deviation, likewise.
        target_mean: of each of the K values of a target over train; None if targets are no values.
        target_std: standard deviation, likewise.
        vocabulary: the text of each id, or None.
        groups: numbers of rows of the groups of train, of each of which a batch draws as many; None
            if all rows are read in turn.
        splits: figures by split.
        provenance: one sentence: which files, or how generated.
        comparable: one sentence: how numbers compare with published ones.
        raw_files: fingerprints of the files and folders that were read, by relative path.
        code: sha256 of the file that has the data set's class; empty for those of this package.
        checksum: sha256 over all arrays.
    """

    name: str
    version: int
    options: dict[str, Any] = field(default_factory=dict)
    kind: Kind
    n_classes: int
    n_targets: int = 0
    vocab_size: int | None = None
    n_features: int | None = None
    targets: Targets
    max_length: int
    mean: list[float] | None = None
    std: list[float] | None = None
    target_mean: list[float] | None = None
    target_std: list[float] | None = None
    vocabulary: list[str] | None = None
    groups: list[int] | None = None
    splits: dict[str, SplitSummary] = field(default_factory=dict)
    provenance: str = ""
    comparable: str = ""
    raw_files: dict[str, list[int]] = field(default_factory=dict)
    code: str = ""
    checksum: str = ""

    @property
    def unit(self) -> str:
        """Name of one example."""
        return "line" if self.kind == "text" else "row"

    @property
    def validates_on_test(self) -> bool:
        """True if the validation split is the test split itself; see `HeldOut.protocol`."""
        return self.options.get("protocol") == "lra"


def make_card(description: Description, splits: Mapping[str, Split], **identity: Any) -> Card:
    """The card of `splits`.

    Args:
        description: what the data set says of itself.
        splits: all of them, "train" among them.
        identity: `name`, `version`, `options`, `raw_files` and `code` of the card.

    Raises:
        ValueError: if a split has no rows, or labels of another form than its targets need, or the
            groups are not the rows of train.
    """
    for name, split in splits.items():
        if not len(split):
            raise ValueError(f"{identity['name']}: split {name!r} has no rows")
        _check_form(f"{identity['name']}, {name}", description.targets, split.labels)
    train = splits["train"]
    vocabulary, groups = description.vocabulary, description.groups
    if groups is not None and (min(groups) < 1 or sum(groups) != len(train)):
        raise ValueError(
            f"{identity['name']}: groups are {', '.join(map(str, groups))} rows, but must be at "
            f"least 1 each and the {len(train)} of train together"
        )
    facts = asdict(description)
    facts["vocabulary"] = None if vocabulary is None else list(vocabulary)
    facts["groups"] = None if groups is None else list(groups)
    counted = 0 if description.targets == "tokens" else description.n_classes
    summaries = {name: _summary(split, counted) for name, split in splits.items()}
    mean, std = _moments_of_inputs(train)
    by_value = are_values(train.labels)
    target_mean, target_std = _moments(_by_step(train.labels)) if by_value else (None, None)
    features = train.blank.shape
    return Card(
        **identity,
        **facts,
        vocab_size=None if vocabulary is None else len(vocabulary),
        n_features=features[0] if features else None,
        n_targets=train.labels.shape[-1] if by_value else 0,
        max_length=max(summary["max_length"] for summary in summaries.values()),
        mean=mean,
        std=std,
        target_mean=target_mean,
        target_std=target_std,
        splits=summaries,
        checksum=checksum(splits),
    )


def write_card(card: Card, folder: Path) -> None:
    """Store the card in `folder`."""
    text = json.dumps(asdict(card), indent=1)
    (folder / CARD_NAME).write_text(text + "\n", encoding="utf-8")


def read_card(folder: Path) -> Card:
    """The card in `folder`; one from before targets had types gets them.

    Raises:
        CacheError: if there is none, or it is not one.
    """
    try:
        facts = json.loads((folder / CARD_NAME).read_text(encoding="utf-8"))
        if facts["targets"] in _FORMER_TARGETS:
            former = _FORMER_TARGETS[facts["targets"]]
            facts["targets"] = "tokens" if facts["kind"] == "text" else former
        return Card(**facts)
    except (KeyError, OSError, ValueError, TypeError) as error:
        raise damaged(folder, f"{CARD_NAME} cannot be read ({error})") from error


def check_contents(card: Card, splits: Mapping[str, Split]) -> None:
    """Check what a checksum cannot: that ids and labels are among those of the card.

    Raises:
        ValueError: naming the split and what is wrong.
    """
    for name, split in splits.items():
        if card.targets != "tokens":
            _check_labels(card, f"{card.name}, {name}", split)
        documents = (split.first, split.second) if isinstance(split, Pairs) else (split,)
        for document in documents:
            if card.kind == "values" or isinstance(document, Dense) or not document.values.size:
                continue
            low, high = int(document.values.min()), int(document.values.max())
            first, last = int(card.kind != "text"), (card.vocab_size or 0) - 1
            if low < first or high > last:
                raise ValueError(
                    f"{card.name}, {name}: ids are {low} to {high}, but those of tokens are "
                    f"{first} to {last}"
                )


def _check_form(where: str, targets: Targets, labels: np.ndarray) -> None:
    """Check that labels are what these targets need, and finite if they are values."""
    values, by_step = are_values(labels), are_of_steps(labels)
    axes = ["n", *["T"] * by_step, *["K"] * values]
    if f"{'values' if values else 'classes'} [{', '.join(axes)}]" != LABELS[targets]:
        raise ValueError(
            f"{where}: labels are {labels.dtype} of shape {labels.shape}, but those of targets "
            f"{targets!r} are {LABELS[targets]}"
        )
    if values and (np.isinf(labels).any() or not (by_step or np.isfinite(labels).all())):
        or_none = ", or NaN where a step has none" if by_step else ""
        raise ValueError(f"{where}: labels are not all finite numbers{or_none}")


def _check_labels(card: Card, where: str, split: Split) -> None:
    """Check that classes are those of the card, and that no label is beyond the end of a row."""
    labels, by_step = split.labels, are_of_steps(split.labels)
    present = ~np.isnan(labels) if are_values(labels) else labels != NO_TARGET
    if not are_values(labels):
        last = card.n_classes - 1
        least = given(last) if by_step else 0
        if labels.min(initial=0) < least or labels.max(initial=0) > last:
            or_else = f", or {given(0)} to {least} where they are given, or {NO_TARGET} for none"
            raise ValueError(f"{where}: labels are not all 0 to {last}{or_else * by_step}")
    if by_step:
        beyond = np.arange(labels.shape[1]) >= split.lengths[:, None]
        if present[beyond].any():
            raise ValueError(f"{where}: there are labels beyond the ends of rows")


def _summary(split: Split, n_classes: int) -> SplitSummary:
    lengths, labels = split.lengths, split.labels
    counts = [] if are_values(labels) else np.bincount(labels[labels >= 0], minlength=n_classes)
    return SplitSummary(
        examples=len(split),
        min_length=int(lengths.min()),
        mean_length=float(lengths.mean()),
        max_length=int(lengths.max()),
        class_counts=[int(count) for count in counts],
    )


def _by_step(values: Shaped[np.ndarray, "n *T K"]) -> Shaped[np.ndarray, "n T K"]:
    """Values of rows as those of their only steps."""
    return values[:, None] if values.ndim == 2 else values


def _moments_of_inputs(split: Split) -> tuple[list[float], list[float]] | tuple[None, None]:
    """Mean and standard deviation of each feature over the steps that there are."""
    if isinstance(split, Dense):
        return _moments(split.inputs)
    if isinstance(split, Pairs) or split.values.ndim == 1:
        return None, None
    return _moments(split.values[:, None], _STEPS_AT_ONCE)


def _moments(
    numbers: Shaped[np.ndarray, "n T F"], at_once: int = _ROWS_AT_ONCE
) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each of the last axis; bytes scaled to [0, 1]."""
    if numbers.dtype == np.uint8:
        return _moments_of_bytes(numbers, at_once)
    return _moments_of_numbers(numbers, at_once)


def _moments_of_bytes(
    inputs: UInt8[np.ndarray, "n T F"], at_once: int
) -> tuple[list[float], list[float]]:
    """Exact, from how often each byte occurs: ten times faster than sums of numbers."""
    counts = np.zeros((inputs.shape[2], 256), np.int64)
    for start in range(0, len(inputs), at_once):
        part = inputs[start : start + at_once]
        for feature, count in enumerate(counts):
            count += np.bincount(part[..., feature].ravel(), minlength=256)
    share, values = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), np.arange(256) / 255
    mean = share @ values
    deviation = (share * (values - mean[:, None]) ** 2).sum(axis=1)
    return mean.tolist(), np.sqrt(deviation).tolist()


def _moments_of_numbers(
    numbers: Shaped[np.ndarray, "n T F"], at_once: int
) -> tuple[list[float], list[float]]:
    """Two passes in float64; NaN is no number."""

    def mean_of(centre: Float64[np.ndarray, " F"], power: int) -> Float64[np.ndarray, " F"]:
        total, count = np.zeros((2, numbers.shape[2]))
        for start in range(0, len(numbers), at_once):
            part = numbers[start : start + at_once].astype(np.float64)
            total += np.nansum((part - centre) ** power, (0, 1))
            count += (~np.isnan(part)).sum((0, 1))
        return total / np.maximum(count, 1)

    mean = mean_of(np.zeros(numbers.shape[2]), 1)
    return mean.tolist(), np.sqrt(mean_of(mean, 2)).tolist()
