"""Batches of examples: options, and the rows of a split, padded.

See `lru.batches.plan` for which rows make which batch.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from lru.batches.plan import (
    PADDING_ROW,
    Plan,
    Selection,
    Selections,
    bounds_used_again,
    bucket_bounds,
    plan_balanced,
    plan_epoch,
    read_ahead,
)
from lru.dataloaders import Pairs, Split


@dataclass(frozen=True)
class DataConfig:
    """The data and how it is batched."""

    dataset: str = "listops-classification"
    """Name of the data set."""
    data_options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the data set, as NAME=VALUE."""
    batch_size: int = 64
    """Sequences in a batch; in language models, parallel streams of the text."""
    bucketing: bool = True
    """Put sequences of similar length into a batch, which saves padding."""
    n_buckets: int = 8
    """Number of padded lengths with bucketing or variable_bptt; each is compiled once."""

    def __post_init__(self):
        """Check the ranges.

        Raises:
            ValueError: if a value is out of range.
        """
        for name in ("batch_size", "n_buckets"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


class Batch(NamedTuple):
    """One batch on the host or the device.

    Attributes:
        inputs: token ids [B, T], those of two documents a row [B, 2, T], or raw values [B, T, F],
            in their stored type; zeros beyond the end of a row.
        labels: by the targets of the data set: "class" int32 [B]; "class_per_step" int32 [B, T],
            -1 for none, -2 - class where it is given; "values" float32 [B, K]; "values_per_step"
            float32 [B, T, K], NaN for none.
            Rows that are no example have zeros, which their weights leave out.
        weights: 1 for an example, 0 for a row that fills up the last batch [B].
        lengths: valid steps of each row [B], or of both documents of each row [B, 2]; None if the
            examples of the split have one length and no row is a filler. So each padded length is
            one program to compile, and one more if the last batch of examples of one length is not
            full.
    """

    inputs: Any
    labels: Any
    weights: Any
    lengths: Any


class Batches:
    """The batches of one split.

    Attributes:
        split: the examples.
        batch_size: rows of a batch.
        bounds: padded lengths, ascending.
        steps_per_epoch: batches of an epoch, the last ragged one included.
        shard: index and number of the processes that share each batch.
    """

    def __init__(
        self,
        split: Split,
        config: DataConfig,
        *,
        seed: int | None = None,
        bounds: np.ndarray | None = None,
        groups: Sequence[int] | None = None,
    ):
        """Prepare to batch.

        Args:
            split: the examples.
            config: batch size and bucketing.
            seed: of the shuffling; None keeps one order for all epochs (evaluation).
            bounds: padded lengths of another split, whose programs then serve this one, too; None
                chooses the best for this split.
            groups: numbers of rows of the groups of the split, one after the other, of each of
                which every batch draws as many by the seed; None reads all rows in turn.

        Raises:
            ValueError: if the split is empty, or the batch size is no multiple of the number of
                groups.
        """
        if len(split) == 0:
            raise ValueError("the split is empty: there is nothing to batch")
        if groups is not None and config.batch_size % len(groups):
            raise ValueError(
                f"batch_size must be a multiple of {len(groups)}, as a batch has as many rows of "
                f"each of the {len(groups)} groups of the data, got {config.batch_size}"
            )
        self.split, self.batch_size = split, config.batch_size
        # Both are taken once: a split computes them anew each time.
        self._longest = split.lengths
        self._lengths = (
            split.lengths_of(range(len(split))) if isinstance(split, Pairs) else self._longest
        )
        self._seed, self.shard, self._groups = seed, (0, 1), groups
        if bounds is None:
            bounds = bucket_bounds(self._longest, config.n_buckets if config.bucketing else 1)
        self.bounds = bounds_used_again(bounds, int(self._longest.max()))
        # Of groups there is no last, ragged batch.
        self.steps_per_epoch = (
            -(-len(split) // config.batch_size)
            if groups is None
            else max(len(split) // config.batch_size, 1)
        )

    def shared(self, shard: tuple[int, int]) -> "Batches":
        """The same batches, of which this process takes a share.

        Args:
            shard: index and number of the processes that share each batch.

        Raises:
            ValueError: if the batch size is no multiple of the processes.
        """
        if self.batch_size % shard[1]:
            raise ValueError(
                f"batch_size must be a multiple of the {shard[1]} processes, got {self.batch_size}"
            )
        mine = copy.copy(self)
        mine.shard = shard
        return mine

    def plan(self, epoch: int) -> Plan:
        """The plan of an epoch, counted from 0."""
        rng = None if self._seed is None else np.random.default_rng((self._seed, epoch))
        if self._groups is not None and rng is not None:
            return plan_balanced(self._groups, self.batch_size, int(self.bounds[-1]), rng)
        return plan_epoch(self._longest, self.batch_size, self.bounds, rng)

    def count(self, selections: Iterable[Selection]) -> tuple[int, int]:
        """Examples of batches, in all processes, and their time steps without padding."""
        examples = np.concatenate([selection.of_all for selection in selections])
        return len(examples), int(self._lengths[examples].sum())

    def padding_share(self) -> float:
        """Share of an epoch's steps that are padding, fillers of the last batch left out."""
        plan = self.plan(0)
        padded = sum(
            len(rows) * length for rows, length in zip(plan.rows, plan.padded_lengths, strict=True)
        )
        documents = self._lengths.size // len(self._lengths)
        return 1 - self._lengths[np.concatenate(plan.rows)].sum() / (padded * documents)

    def description(self) -> str:
        """Phrase that says how much there is to read."""
        return (
            f"{self.steps_per_epoch} of {self.batch_size} an epoch, padded to "
            f"{', '.join(map(str, self.bounds))}; {self.padding_share():.1%} padding"
        )

    def selections(self, epoch: int = 0) -> Sequence[Selection]:
        """Rows that make the batches of an epoch, by random access."""
        one_length = bool((self._lengths == self.bounds[-1]).all())
        return Selections(self.plan(epoch), one_length, self.batch_size, self.shard)

    def read(self, selection: Selection) -> Batch:
        """The batch of a selection, on the host."""
        rows = selection.rows[selection.rows != PADDING_ROW]
        fillers = len(selection.rows) - len(rows)

        def fill(array: np.ndarray) -> np.ndarray:
            return np.pad(array, [(0, fillers)] + [(0, 0)] * (array.ndim - 1))

        return Batch(
            inputs=fill(self.split.padded(rows, selection.length)),
            labels=fill(self.split.labels_of(rows, selection.length)),
            weights=fill(np.ones(len(rows), np.float32)),
            lengths=None if selection.full else fill(self._lengths[rows].astype(np.int32)),
        )

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from batch `start` on, on the host, read ahead."""
        return read_ahead(self.selections(epoch), self.read, start)
