"""Recall from the same row: what stood behind a key, or behind a marker, when it was seen before.

The tasks of Fu et al. (2023), "Hungry Hungry Hippos", section 3.1, in the sizes of Akyürek et al.
(2024), "In-Context Language Learning".
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Int

from lru.dataloaders.base import Description, check_at_least, register
from lru.dataloaders.sets.generated import Generated, Ids
from lru.dataloaders.sets.streams import Stream
from lru.dataloaders.store.arrays import NO_TARGET

MARKER = "=>"


@dataclass(frozen=True)
class Recall(Generated):
    """Base of rows with one answer at the end.

    Their tokens are symbols and the marker; a vocabulary counts one more, which published rows have
    for a question without an answer and which never occurs.

    Attributes:
        guess: in how many rows a guess is right, for the card.
    """

    guess: ClassVar[str]

    n_train: int = 5_000
    """rows to train on"""
    n_val: int = 500
    """rows to validate on"""
    n_test: int = 500
    """rows to test on"""
    vocabulary: int = 40
    """number of symbols and 2"""
    train_targets: Literal["all", "last"] = "all"
    """steps of a row to train on that have a target: all, each the next token, or the last alone"""

    def __post_init__(self):
        super().__post_init__()
        check_at_least(self, vocabulary=4)

    @property
    def n_symbols(self) -> int:
        """Number of symbols; their ids start at 1, and the marker follows."""
        return self.vocabulary - 2

    def labelled(self, split: str, tokens: Int[np.ndarray, "n L"]) -> tuple[Ids, Ids]:
        """Rows and labels, from rows with their answers as the last token."""
        labels = tokens[:, 1:] - 1
        if split != "train" or self.train_targets == "last":
            labels[:, :-1] = NO_TARGET
        return tokens[:, :-1], labels

    def description(self) -> Description:
        """See `Generated.description`."""
        symbols = map(str, range(self.n_symbols))
        return Description(
            kind="tokens",
            n_classes=self.n_symbols + 1,
            targets="class_per_step",
            vocabulary=("<pad>", *symbols, MARKER),
            provenance=f"Generated with seed {self.seed}.",
            comparable=(
                "The rules and, by default, the sizes of the published task, with other draws; the "
                f"published one selects on its test rows. A guess is right in {self.guess}."
            ),
        )


@register
@dataclass(frozen=True)
class AssociativeRecall(Recall):
    """Recall the value of a key from a row of pairs, which are drawn anew for each row; generated.

    The first half of the symbols are keys, the second half values; two keys may have one value.
    """

    name: ClassVar[str] = "associative-recall"
    guess: ClassVar[str] = "1 of (vocabulary - 2) / 2 rows"

    n_pairs: int = 192
    """pairs of a key and a value; a key occurs more than once, always with the same value"""

    def __post_init__(self):
        super().__post_init__()
        check_at_least(self, n_pairs=1)
        if self.vocabulary % 2:
            raise ValueError(f"{self.name}: vocabulary must be even, got {self.vocabulary}")

    def longest(self, split: str) -> int:
        """See `Generated.longest`."""
        del split
        return 2 * self.n_pairs + 2

    def rows(self, split: str, n: int, stream: Stream) -> tuple[Ids, Ids]:
        """See `Generated.rows`."""
        half, row = self.n_symbols // 2, np.arange(n)
        values, keys = stream.below(half, n, half), stream.below(half, n, self.n_pairs)
        occurs = np.zeros((n, half), bool)
        occurs[row[:, None], keys] = True
        # Each key that occurs is as likely to be asked for, however often it does.
        query = np.where(occurs, stream.unit(n, half), -1.0).argmax(axis=1)
        tokens = np.empty((n, self.longest(split) + 1), np.int64)
        tokens[:, :-3:2] = keys + 1
        tokens[:, 1:-3:2] = np.take_along_axis(values, keys, axis=1) + half + 1
        tokens[:, -3] = self.n_symbols + 1
        tokens[:, -2], tokens[:, -1] = query + 1, values[row, query] + half + 1
        return self.labelled(split, tokens)


@register
@dataclass(frozen=True)
class InductionHeads(Recall):
    """Recall the symbol behind the only marker, when the marker comes again; generated."""

    name: ClassVar[str] = "induction-heads"
    guess: ClassVar[str] = "1 of vocabulary - 2 rows"

    vocabulary: int = 16
    """number of symbols and 2"""
    length: int = 256
    """steps before the last, which is the second marker"""

    def __post_init__(self):
        super().__post_init__()
        check_at_least(self, length=3)

    def longest(self, split: str) -> int:
        """See `Generated.longest`."""
        del split
        return self.length + 1

    def rows(self, split: str, n: int, stream: Stream) -> tuple[Ids, Ids]:
        """See `Generated.rows`."""
        row, marker = np.arange(n), self.n_symbols + 1
        tokens = 1 + stream.below(self.n_symbols, n, self.length + 2)
        place = stream.below(self.length - 2, n)
        tokens[row, place], tokens[:, -2] = marker, marker
        tokens[:, -1] = tokens[row, place + 1]
        return self.labelled(split, tokens)
