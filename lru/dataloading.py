"""Batches: which examples, in which order, padded to which length, and their delivery.

A plan is a pure function of the seed and the epoch, so batch k is the same whoever asks for it: a
run resumes at any step without replaying the ones before, and several processes take disjoint
rows of one global batch. Grain reads ahead in threads.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import grain
import numpy as np

from lru.dataloaders import Pairs, Split

Chosen = TypeVar("Chosen")
Delivered = TypeVar("Delivered")

# Candidates between which the bucket bounds are chosen; their number bounds the search's cost.
BOUND_CANDIDATES = 128

# Batches that the reading thread keeps ready.
READ_AHEAD = 4

FILLER = -1
"""Index of a row that is no example."""


@dataclass(frozen=True)
class DataConfig:
    """The data and how it is batched."""

    dataset: str = "listops-classification"
    """Data set."""
    data_options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the data set, as NAME=VALUE."""
    batch_size: int = 64
    """Sequences in a batch; of a text, streams that are read side by side."""
    bucketing: bool = True
    """Batch ragged sequences with others of about their length."""
    n_buckets: int = 8
    """Number of padded lengths, and so of compiled shapes, with bucketing or variable_bptt."""

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
            -1 for none; "values" float32 [B, K]; "values_per_step" float32 [B, T, K], NaN for none.
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


class Plan(NamedTuple):
    """The batches of one epoch.

    Attributes:
        rows: the examples of each batch; at most `batch_size`, fewer in one batch only.
        padded_lengths: the length to which each batch is padded.
    """

    rows: list[np.ndarray]
    padded_lengths: list[int]


def bucket_bounds(lengths: np.ndarray, n_buckets: int) -> np.ndarray:
    """The padded lengths, ascending, that waste the fewest steps on these sequences.

    Exact among quantiles of the lengths, by dynamic programming: a bucket that holds the sequences
    longer than bound i and no longer than bound j costs their number times bound j.
    """
    # A batch has at least one step, even if its sequences have none.
    lengths = np.maximum(lengths, 1)
    bounds = np.unique(np.quantile(lengths, np.linspace(0, 1, BOUND_CANDIDATES), method="higher"))
    count = np.searchsorted(np.sort(lengths), bounds, side="right")
    n = len(bounds)
    cost = np.asarray(bounds * count, np.float64)
    choice = np.zeros((min(n_buckets, n), n), np.int64)
    step = np.where(np.arange(n)[:, None] < np.arange(n), (count - count[:, None]) * bounds, np.inf)
    for k in range(1, len(choice)):
        total = cost[:, None] + step
        choice[k] = total.argmin(axis=0)
        cost = total.min(axis=0)
    chosen = [n - 1]
    for k in range(len(choice) - 1, 0, -1):
        chosen.append(choice[k][chosen[-1]])
    return bounds[chosen[::-1]]


def bounds_used_again(bounds: np.ndarray, longest: int) -> np.ndarray:
    """Those bounds that rows of at most `longest` steps need, and `longest` if none holds it."""
    needed = bounds[: np.searchsorted(bounds, longest) + 1]
    return needed if longest <= bounds[-1] else np.append(bounds, longest)


def plan_epoch(
    lengths: np.ndarray,
    batch_size: int,
    bounds: np.ndarray,
    rng: np.random.Generator | None,
) -> Plan:
    """Deal every example into exactly one batch.

    Args:
        lengths: of all sequences [n]; of pairs, those of the longer documents.
        batch_size: rows of a batch.
        bounds: padded lengths, ascending; the last holds the longest sequence.
        rng: shuffles examples and batches; None keeps the order within each bucket.

    Returns:
        A plan in which every batch but one is full: what is left over in a bucket goes to the next.
    """
    order = np.arange(len(lengths)) if rng is None else rng.permutation(len(lengths))
    bucket = np.searchsorted(bounds, lengths[order])
    rows, padded_lengths = [], []
    left = order[:0]
    for b, bound in enumerate(bounds):
        members = np.concatenate([left, order[bucket == b]])
        full = len(members) if b == len(bounds) - 1 else len(members) // batch_size * batch_size
        for start in range(0, full, batch_size):
            rows.append(members[start : min(start + batch_size, full)])
            padded_lengths.append(int(bound))
        left = members[full:]
    if rng is not None:
        shuffled = rng.permutation(len(rows))
        rows = [rows[i] for i in shuffled]
        padded_lengths = [padded_lengths[i] for i in shuffled]
    return Plan(rows, padded_lengths)


class Selection(NamedTuple):
    """The rows of one batch, before any of them is read.

    Attributes:
        rows: indices of the examples [B]; `FILLER` for a row that fills up the last batch.
        length: the length to which they are padded.
        full: whether every row of the batch, in all processes, is an example, and the examples have
            one length.
    """

    rows: np.ndarray
    length: int
    full: bool


@dataclass(frozen=True)
class _Selections(Sequence):
    """Random access to the share of one process in the batches of a plan."""

    plan: Plan
    one_length: bool
    batch_size: int
    shard: tuple[int, int]

    def __len__(self) -> int:
        return len(self.plan.rows)

    def __getitem__(self, k: int) -> Selection:
        rows, length = self.plan.rows[k], self.plan.padded_lengths[k]
        index, count = self.shard
        share = self.batch_size // count
        mine = rows[index * share : (index + 1) * share]
        return Selection(
            rows=np.pad(mine, (0, share - len(mine)), constant_values=FILLER),
            length=length,
            # The whole global batch must be full, so that all processes compile one program.
            full=self.one_length and len(rows) == self.batch_size,
        )


def read_ahead(
    selections: Sequence[Chosen], read: Callable[[Chosen], Delivered], start: int = 0
) -> Iterator[Delivered]:
    """What `read` makes of each selection from number `start` on, made ahead by a thread."""
    data = grain.MapDataset.source(selections).map(read)[start:]
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=READ_AHEAD)
    return iter(data.to_iter_dataset(options))


class Batches:
    """The batches of one split.

    Attributes:
        split: the examples.
        batch_size: rows of a batch.
        bounds: padded lengths, ascending.
        steps_per_epoch: batches of an epoch, the last ragged one included.
    """

    def __init__(
        self,
        split: Split,
        config: DataConfig,
        *,
        seed: int | None = None,
        shard: tuple[int, int] = (0, 1),
        bounds: np.ndarray | None = None,
    ):
        """Prepare to batch.

        Args:
            split: the examples.
            config: batch size and bucketing.
            seed: of the shuffling; None keeps one order for all epochs (evaluation).
            shard: index and number of the processes that share each batch.
            bounds: padded lengths of another split, whose programs then serve this one, too; None
                chooses the best for this split.

        Raises:
            ValueError: if the split is empty or the batch size is no multiple of the processes.
        """
        if len(split) == 0:
            raise ValueError("the split is empty: there is nothing to batch")
        if config.batch_size % shard[1]:
            raise ValueError(
                f"batch_size must be a multiple of the {shard[1]} processes, "
                f"got {config.batch_size}"
            )
        self.split, self.batch_size = split, config.batch_size
        # Both are taken once: a split computes them anew each time.
        self._longest = split.lengths
        self._lengths = (
            split.lengths_of(range(len(split))) if isinstance(split, Pairs) else self._longest
        )
        self._seed, self._shard = seed, shard
        if bounds is None:
            bounds = bucket_bounds(self._longest, config.n_buckets if config.bucketing else 1)
        self.bounds = bounds_used_again(bounds, int(self._longest.max()))
        self.steps_per_epoch = -(-len(split) // config.batch_size)

    def plan(self, epoch: int) -> Plan:
        """The plan of an epoch, counted from 0."""
        rng = None if self._seed is None else np.random.default_rng((self._seed, epoch))
        return plan_epoch(self._longest, self.batch_size, self.bounds, rng)

    def padding_share(self) -> float:
        """Share of an epoch's steps that are padding, fillers of the last batch left out."""
        plan = self.plan(0)
        padded = sum(
            len(rows) * length for rows, length in zip(plan.rows, plan.padded_lengths, strict=True)
        )
        documents = self._lengths.size // len(self._lengths)
        return 1 - self._lengths.sum() / (padded * documents)

    def description(self) -> str:
        """What there is to read, in a phrase."""
        return (
            f"{self.steps_per_epoch} of {self.batch_size} an epoch, padded to "
            f"{', '.join(map(str, self.bounds))}; {self.padding_share():.1%} padding"
        )

    def selections(self, epoch: int = 0) -> Sequence[Selection]:
        """Which rows make the batches of an epoch, by random access."""
        one_length = bool((self._lengths == self.bounds[-1]).all())
        return _Selections(self.plan(epoch), one_length, self.batch_size, self._shard)

    def read(self, selection: Selection) -> Batch:
        """The batch of a selection, on the host."""
        rows = selection.rows[selection.rows != FILLER]
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
