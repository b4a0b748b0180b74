"""Regular languages: a row is a string of symbols, its class the state of a small automaton.

Rows to train on are short, those to evaluate on longer: the four regular tasks of Deletang et al.
(2023), "Neural Networks and the Chomsky Hierarchy", with the lengths of Walker et al. (2025),
"Structured Linear CDEs".
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Int

from lru.dataloaders.base import Description, check_at_least, register
from lru.dataloaders.sets.generated import Generated, Ids
from lru.dataloaders.sets.streams import Stream, power_law

Lengths = Int[np.ndarray, " n"]


@dataclass(frozen=True)
class FormalLanguage(Generated):
    """Base of strings of random symbols with one answer at their end.

    Attributes:
        symbols: texts of the ids from 1 on.
        class_names: the answers.
    """

    task: ClassVar[str] = "classification_by_length"
    symbols: ClassVar[tuple[str, ...]]

    min_length: int = 3
    """fewest symbols of a row to train on"""
    max_length: int = 40
    """most symbols of a row to train on, and fewest of one to evaluate on"""
    max_eval_length: int = 256
    """most symbols of a row to evaluate on"""
    length_power: float = 0.0
    """power of one over the length of a row to train on, which lengths are drawn by: 0 all alike, 1
    mostly short ones, on which learning begins"""

    def __post_init__(self):
        super().__post_init__()
        check_at_least(self, min_length=1, length_power=0)
        check_at_least(self, max_length=self.min_length, max_eval_length=self.max_length)

    @abstractmethod
    def answers(self, ids: Ids, lengths: Lengths) -> Int[np.ndarray, " n"]:
        """The class of each string.

        Args:
            ids: of its symbols.
            lengths: their numbers.
        """

    def lengths(self, split: str, n: int, stream: Stream) -> Lengths:
        """Numbers of symbols: each as likely as any other, but for `length_power`."""
        if split != "train":
            return self.max_length + stream.below(self.max_eval_length - self.max_length + 1, n)
        if not self.length_power:
            return self.min_length + stream.below(self.max_length - self.min_length + 1, n)
        lengths = np.arange(self.min_length, self.max_length + 1)
        weights = power_law(lengths, -self.length_power)
        drawn = stream.below(int(weights.sum()), n)
        return self.min_length + np.searchsorted(weights.cumsum(), drawn, side="right")

    def strings(self, lengths: Lengths, width: int, stream: Stream) -> Ids:
        """Ids of as many symbols as there are steps, some of which are behind the ends."""
        return 1 + stream.below(len(self.symbols), len(lengths), width)

    def longest(self, split: str) -> int:
        """See `Generated.longest`."""
        return self.max_length if split == "train" else self.max_eval_length

    def rows(self, split: str, n: int, stream: Stream) -> tuple[Ids, Int[np.ndarray, " n"]]:
        """See `Generated.rows`."""
        lengths, width = self.lengths(split, n, stream), self.longest(split)
        ids = self.strings(lengths, width, stream)
        ids = np.where(np.arange(width) < lengths[:, None], ids, 0)
        return ids, self.answers(ids, lengths)

    def description(self) -> Description:
        """See `Generated.description`."""
        return Description(
            kind="tokens",
            n_classes=len(self.class_names),
            targets="class",
            vocabulary=("<pad>", *self.symbols),
            provenance=f"Generated with seed {self.seed}.",
            comparable=(
                "The rules and, by default, the lengths of the published task, with other draws: "
                "train is a fixed set, val and test have the longer rows. A guess is right in 1 of "
                f"{len(self.class_names)} rows."
            ),
        )


@register
@dataclass(frozen=True)
class Parity(FormalLanguage):
    """Tell whether a string of a and b has an even number of b; generated."""

    name: ClassVar[str] = "parity"
    separator: ClassVar[str] = ""
    symbols: ClassVar[tuple[str, ...]] = ("a", "b")
    class_names: ClassVar[tuple[str, ...]] = ("even", "odd")

    def answers(self, ids: Ids, lengths: Lengths) -> Int[np.ndarray, " n"]:
        """See `FormalLanguage.answers`."""
        del lengths
        return np.count_nonzero(ids == 2, axis=1) % 2


@register
@dataclass(frozen=True)
class EvenPairs(FormalLanguage):
    """Tell whether a and b follow each other evenly often: first and last are equal; generated."""

    name: ClassVar[str] = "even-pairs"
    separator: ClassVar[str] = ""
    symbols: ClassVar[tuple[str, ...]] = ("a", "b")
    class_names: ClassVar[tuple[str, ...]] = ("equal", "different")

    def answers(self, ids: Ids, lengths: Lengths) -> Int[np.ndarray, " n"]:
        """See `FormalLanguage.answers`."""
        return (ids[:, 0] != ids[np.arange(len(ids)), lengths - 1]).astype(np.int64)


@register
@dataclass(frozen=True)
class CycleNavigation(FormalLanguage):
    """Follow steps forward, back or none on a circle of five places; generated."""

    name: ClassVar[str] = "cycle-navigation"
    symbols: ClassVar[tuple[str, ...]] = ("STAY", "+1", "-1")
    class_names: ClassVar[tuple[str, ...]] = ("0", "1", "2", "3", "4")

    def answers(self, ids: Ids, lengths: Lengths) -> Int[np.ndarray, " n"]:
        """See `FormalLanguage.answers`."""
        del lengths
        return np.array([0, 0, 1, -1])[ids].sum(axis=1) % 5


@register
@dataclass(frozen=True)
class ModularArithmetic(FormalLanguage):
    """Evaluate sums, differences and products of digits modulo 5, without brackets; generated.

    Products come first. A string has digits and signs in turn and ends with "=", so that its length
    is even: an odd one that is drawn is raised by 1.
    """

    name: ClassVar[str] = "modular-arithmetic"
    separator: ClassVar[str] = ""
    symbols: ClassVar[tuple[str, ...]] = ("+", "-", "*", "=", "0", "1", "2", "3", "4")
    class_names: ClassVar[tuple[str, ...]] = ("0", "1", "2", "3", "4")

    def lengths(self, split: str, n: int, stream: Stream) -> Lengths:
        """See `FormalLanguage.lengths`."""
        drawn = super().lengths(split, n, stream)
        return drawn + drawn % 2

    def longest(self, split: str) -> int:
        """See `Generated.longest`."""
        most = super().longest(split)
        return most + most % 2

    def strings(self, lengths: Lengths, width: int, stream: Stream) -> Ids:
        """See `FormalLanguage.strings`."""
        ids = np.empty((len(lengths), width), np.int64)
        ids[:, ::2] = 5 + stream.below(5, len(ids), width // 2)
        ids[:, 1::2] = 1 + stream.below(3, len(ids), width // 2)
        ids[np.arange(len(ids)), lengths - 1] = 4
        return ids

    def answers(self, ids: Ids, lengths: Lengths) -> Int[np.ndarray, " n"]:
        """See `FormalLanguage.answers`."""
        total, term = np.zeros((2, len(ids)), np.int64)
        for step in range(0, ids.shape[1], 2):
            digit, sign = ids[:, step] - 5, ids[:, step - 1] if step else np.ones_like(term)
            product = sign == 3
            new = np.where(sign == 2, -digit, digit)
            # A sum waits for the factors that may follow its last term.
            inside = step < lengths
            total = np.where(inside & ~product, total + term, total) % 5
            term = np.where(inside, np.where(product, term * digit, new), term) % 5
        return (total + term) % 5
