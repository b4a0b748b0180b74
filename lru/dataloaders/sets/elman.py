"""The tasks of Elman, "Finding Structure in Time" (Cognitive Science 1990), in words of bits.

They are told as in Bausch, "Recurrent Quantum Neural Networks" (NeurIPS 2020).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lru.dataloaders.base import register
from lru.dataloaders.sets.bit_words import GeneratedWords, Sequences

LETTERS = "aiu-bdg·"
"""Words of `elman-letter` in order: vowels, none, consonants, and any consonant as an output."""

SYLLABLES = ("ba", "dii", "guuu")


@register
@dataclass(frozen=True)
class ElmanXor(GeneratedWords):
    """Predict each third bit, the exclusive or of the two random ones before; generated."""

    name: ClassVar[str] = "elman-xor"
    least_length: ClassVar[int] = 3
    n_bits: ClassVar[int] = 2
    texts: ClassVar[Sequence[str]] = ("0", "1", "·")

    def draw(self, n: int, rng: np.random.Generator) -> Sequences:
        """See `GeneratedWords.draw`: only outputs that can be foretold are scored."""
        length = self.sentence_length
        bits = rng.integers(2, size=(n, -(-length // 3), 3))
        bits[:, :, 2] = bits[:, :, 0] ^ bits[:, :, 1]
        bits = bits.reshape(n, -1)[:, :length]
        scored = np.arange(length) % 3 == 2
        return Sequences(bits, np.where(scored, bits, self.texts.index("·")), scored[None])


@register
@dataclass(frozen=True)
class ElmanLetter(GeneratedWords):
    """Predict the letters of ba, dii and guuu in random order, any consonant as one; generated."""

    name: ClassVar[str] = "elman-letter"
    n_bits: ClassVar[int] = 3
    texts: ClassVar[Sequence[str]] = LETTERS

    def draw(self, n: int, rng: np.random.Generator) -> Sequences:
        """See `GeneratedWords.draw`: all outputs are scored."""
        length = self.sentence_length
        words = [np.array([LETTERS.index(letter) for letter in part]) for part in SYLLABLES]
        # The shortest has two letters.
        drawn = rng.integers(len(words), size=(n, -(-length // 2)))
        letters = np.stack([np.concatenate([words[k] for k in row])[:length] for row in drawn])
        outputs = np.where(letters >= LETTERS.index("b"), LETTERS.index("·"), letters)
        return Sequences(letters, outputs, np.ones((1, 1), bool))
