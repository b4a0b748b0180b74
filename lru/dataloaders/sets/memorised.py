"""A few sequences to be learned by heart, as in Bausch (NeurIPS 2020)."""

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Int64

from lru.dataloaders.base import Description, check_at_least, register
from lru.dataloaders.sets.bit_words import BitWords, Sequences
from lru.dataloaders.sets.symbols import ALPHABET, words_of

QUOTATIONS = (
    "two roads diverged in a wood, and i, i took the one less travelled by.",
    "all the worlds a stage, and all the men and women merely players.",
    "the fault, dear brutus, is not in our stars, but in ourselves.",
    "because i could not stop for death, he kindly stopped for me.",
    "shall i compare thee to a summers day? thou art more lovely.",
    "it was the best of times, it was the worst of times.",
)


@dataclass(frozen=True)
class Memorised(BitWords):
    """Sequences of one length, the same in all splits; each is a group of train."""

    copies: int = 10
    """rows of each sequence in train, so that an epoch has as many updates or fewer"""

    def __post_init__(self):
        check_at_least(self, copies=1)

    @abstractmethod
    def words(self) -> Int64[np.ndarray, "n L"]:
        """The sequences."""

    def scored(self, words: Int64[np.ndarray, "n L"], split: str) -> Bool[np.ndarray, "n L"]:
        """True for outputs that are predicted: all, unless stated."""
        del split
        return np.ones(words.shape, bool)

    def build(self, raw_dir: Path, folder: Path) -> Description:
        """Write each sequence down as often as it is to be there."""
        del raw_dir
        for split in self.split_names:
            words = np.repeat(self.words(), self.copies if split == "train" else 1, axis=0)
            part = Sequences(words, words, self.scored(words, split))
            self.write(folder, split, words.shape[1] - 1, [part])
        return self.described(
            f"{len(self.words())} sequences, {self.copies} times each in train and once elsewhere.",
            "All splits have the same sequences, as in the original.",
            groups=(self.copies,) * len(self.words()),
        )


@register
@dataclass(frozen=True)
class SimpleSequences(Memorised):
    """Know 0 1 2 3 0 1 … from 4 4 4 …, and go on; two sequences to be learned by heart."""

    name: ClassVar[str] = "simple-seq"
    n_bits: ClassVar[int] = 3
    texts: ClassVar[str] = "01234567"

    sentence_length: int = 20
    """words of a sequence, L; a row has one step fewer"""

    def __post_init__(self):
        super().__post_init__()
        check_at_least(self, sentence_length=2)

    def words(self) -> Int64[np.ndarray, "n L"]:
        """See `Memorised.words`."""
        steps = np.arange(self.sentence_length)
        return np.stack([steps % 4, np.full_like(steps, 4)])


@register
@dataclass(frozen=True)
class SimpleQuotes(Memorised):
    """Recite six quotations, of 32 symbols, letter by letter; to be learned by heart.

    They are not those of the original, but as many and as long. Consonants are given in val and
    test, where the original helps by post-selection: errors count the other symbols alone, while
    the original's validation loss counts all.
    """

    name: ClassVar[str] = "simple-quotes"
    separator: ClassVar[str] = ""
    n_bits: ClassVar[int] = 5
    texts: ClassVar[str] = ALPHABET

    def words(self) -> Int64[np.ndarray, "n L"]:
        """See `Memorised.words`: blanks fill up the shorter ones."""
        longest = max(map(len, QUOTATIONS))
        return np.stack([words_of(text.ljust(longest)) for text in QUOTATIONS])

    def scored(self, words: Int64[np.ndarray, "n L"], split: str) -> Bool[np.ndarray, "n L"]:
        """See `Memorised.scored`: in evaluation all but consonants."""
        consonants = words_of("bcdfghjklmnpqrstvwxyz")
        return np.ones(words.shape, bool) if split == "train" else ~np.isin(words, consonants)
