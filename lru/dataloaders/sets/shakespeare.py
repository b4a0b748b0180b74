"""Tiny Shakespeare (Karpathy 2015): 40,000 lines of the plays, character by character.

There is no official split: nine tenths are for training, and the rest is shared. `shakespeare-32`
has pieces of the same parts, about, in the 32 symbols of Bausch (NeurIPS 2020).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Int64

from lru.dataloaders.base import Description, register
from lru.dataloaders.files.fetch import Source
from lru.dataloaders.sets.bit_words import DrawnWords, Sequences
from lru.dataloaders.sets.corpora import Characters, decoded
from lru.dataloaders.sets.symbols import ALPHABET, in_symbols, words_of

FILE = "tinyshakespeare/input.txt"

_HELD_OUT = 20
"""Of as many equal parts of the text the last tests and the one before it validates."""


@register
@dataclass(frozen=True)
class Shakespeare(Characters):
    """Predict the next character of Shakespeare's plays."""

    name: ClassVar[str] = "shakespeare-lm"
    candidates: ClassVar[tuple[str, ...]] = (FILE, "tinyshakespeare.txt")
    sources: ClassVar[tuple[Source, ...]] = (
        Source(
            "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/" + FILE,
            "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
            FILE,
        ),
    )
    published: ClassVar[Mapping[str, int]] = {"train": 1_003_854, "val": 55_770, "test": 55_770}
    compares: ClassVar[str] = "There are no official splits: published ones differ from these."

    n_val: int = 55_770
    """characters to validate on, before those to test on"""
    n_test: int = 55_770
    """characters to test on, the last of the file"""


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
