"""Text in 32 symbols, words of five bits: letters, `, . ? !`, the blank and the newline."""

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from string import ascii_lowercase
from typing import ClassVar

import numpy as np
from jaxtyping import Int64

from lru.dataloaders.base import Description, register
from lru.dataloaders.files.fetch import Source
from lru.dataloaders.sets.bit_words import DrawnWords, Sequences
from lru.dataloaders.sets.corpora import decoded
from lru.dataloaders.sets.shakespeare import Shakespeare

ALPHABET = f"{ascii_lowercase},.?! \n"
"""Texts of the words in order."""

_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

_HELD_OUT = 20
"""Of as many equal parts of the text the last tests and the one before it validates."""


def words_of(text: str) -> Int64[np.ndarray, " n"]:
    """The words of a text of the alphabet."""
    return np.array([ALPHABET.index(symbol) for symbol in text], np.int64)


def in_symbols(text: str) -> str:
    """A text in the alphabet.

    Letters are lower case, `' ; " :` are commas, digits are spelled out, and ends of lines and all
    other signs are blanks.
    """
    text = re.sub("[';\":]", ",", text.lower())
    text = re.sub("[0-9]", lambda digit: _DIGITS[int(digit[0])], text)
    return re.sub("[^a-z,.?! ]", " ", text)


@register
@dataclass(frozen=True)
class ShakespeareSymbols(DrawnWords):
    """Predict the next of 32 symbols in random pieces of Shakespeare's plays."""

    name: ClassVar[str] = "shakespeare-32"
    separator: ClassVar[str] = ""
    sources: ClassVar[tuple[Source, ...]] = Shakespeare.sources
    n_bits: ClassVar[int] = 5
    texts: ClassVar[str] = ALPHABET

    def raw_files(self, raw_dir: Path) -> tuple[Path, ...]:
        """The file of `shakespeare-lm`."""
        return Shakespeare().raw_files(raw_dir)

    def build(self, raw_dir: Path, folder: Path) -> Description:
        """Cut the text in three and draw pieces of each part."""
        (path,) = self.raw_files(raw_dir)
        words = words_of(in_symbols(decoded(path, path.read_bytes())))
        held_out = len(words) // _HELD_OUT
        if held_out < self.sentence_length:
            raise ValueError(
                f"{self.name}: sentence_length is {self.sentence_length}, but must be at most the "
                f"{held_out} symbols of {path} to validate on"
            )
        parts = np.split(words, [-2 * held_out, -held_out])
        for split, part in zip(self.split_names, parts, strict=True):
            self.write_drawn(folder, split, partial(self._pieces, part))
        return self.described(
            f"Drawn from {path.name} with seed {self.seed}.",
            "Published results are on the complete works, without parts of the text held out, and "
            "on new pieces at every update.",
        )

    def _pieces(
        self, words: Int64[np.ndarray, " total"], n: int, rng: np.random.Generator
    ) -> Sequences:
        starts = rng.integers(len(words) - self.sentence_length + 1, size=(n, 1))
        pieces = words[starts + np.arange(self.sentence_length)]
        return Sequences(pieces, pieces, np.ones((1, 1), bool))
