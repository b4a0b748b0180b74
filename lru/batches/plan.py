"""Plans: which examples make each batch of an epoch, padded to which length; read ahead.

A plan is a pure function of the seed and the epoch, so batch k is the same whoever asks for it: a
run resumes at any step without replaying the ones before, and several processes take disjoint
rows of one global batch. Grain reads ahead in threads.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import grain
import numpy as np

Chosen = TypeVar("Chosen")
Delivered = TypeVar("Delivered")

# Candidates between which the bucket bounds are chosen; their number bounds the search's cost.
BOUND_CANDIDATES = 128

# Batches that the reading thread keeps ready.
READ_AHEAD = 4

PADDING_ROW = -1
"""Index of a row that is no example."""


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


def plan_balanced(
    groups: Sequence[int], batch_size: int, length: int, rng: np.random.Generator
) -> Plan:
    """Draw as many rows of each group into every batch, uniformly and with replacement.

    Args:
        groups: numbers of rows of the groups, which lie one after the other.
        batch_size: rows of a batch, a multiple of the number of groups.
        length: padded length of all batches.
        rng: source of the draws.

    Returns:
        A plan of as many batches as all rows would fill, and at least one; the rows of a batch are
        of the first group, the second, …, the last, and so on again.
    """
    shape = max(sum(groups) // batch_size, 1), batch_size // len(groups), len(groups)
    first = np.cumsum([0, *groups[:-1]])
    rows = (first + rng.integers(groups, size=shape)).reshape(shape[0], batch_size)
    return Plan(list(rows), [length] * shape[0])


class Selection(NamedTuple):
    """The rows of one batch, before any of them is read.

    Attributes:
        rows: indices of the examples [B]; `PADDING_ROW` for a row that fills up the last batch.
        length: the length to which they are padded.
        full: whether every row of the batch, in all processes, is an example, and the examples have
            one length.
        of_all: indices of the examples of the whole batch, in all processes.
    """

    rows: np.ndarray
    length: int
    full: bool
    of_all: np.ndarray

    def alike(self, other: "Selection") -> bool:
        """True if the batch of another has the same shape."""
        return (self.length, self.full) == (other.length, other.full)


@dataclass(frozen=True)
class Selections(Sequence):
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
        filled = np.full(share, PADDING_ROW)
        filled[: len(mine)] = mine
        return Selection(
            rows=filled,
            length=length,
            # The whole global batch must be full, so that all processes compile one program.
            full=self.one_length and len(rows) == self.batch_size,
            of_all=rows,
        )


def read_ahead(
    selections: Sequence[Chosen], read: Callable[[Chosen], Delivered], start: int = 0
) -> Iterator[Delivered]:
    """Read each selection from number `start` on, ahead of its use, in a thread."""
    data = grain.MapDataset.source(selections).map(read)[start:]
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=READ_AHEAD)
    return iter(data.to_iter_dataset(options))
