"""Predict the base after a marker: the long memory task of Bausch (NeurIPS 2020).

Bases are drawn at random, and one of them, in the first half of the sequence, is marked. Outputs
are G before the mark, the marked base at it, and that base, unmarked, ever after. In the paper the
quantum network predicts the last of them, from the input before, while LSTM and RNN make every
output at its own input.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from lru.dataloaders.base import register
from lru.dataloaders.sets.bit_words import GeneratedWords, Sequences

BASES = "GATC"
"""Words from 0 on; four more, each with the marker U before it, follow."""


@register
@dataclass(frozen=True)
class Dna(GeneratedWords):
    """Recall, at the end of a random string of bases, which of them was marked; generated."""

    name: ClassVar[str] = "dna"
    least_length: ClassVar[int] = 4
    n_bits: ClassVar[int] = 3
    texts: ClassVar[Sequence[str]] = (*BASES, *(f"U{base}" for base in BASES))

    scored: Literal["last", "all"] = "last"
    """outputs that are predicted: the last one, others are given; or all, each at its own input"""

    def draw(self, n: int, rng: np.random.Generator) -> Sequences:
        """See `GeneratedWords.draw`."""
        rows, steps = np.arange(n), np.arange(self.sentence_length)
        bases = rng.integers(len(BASES), size=(n, self.sentence_length))
        marked = rng.integers(1, self.sentence_length // 2, size=n)
        base = bases[rows, marked]
        bases[rows, marked] += len(BASES)
        outputs = np.where(steps < marked[:, None], 0, base[:, None])
        outputs[rows, marked] += len(BASES)
        if self.scored == "all":
            # A step reads the input before its output, unless that is moved.
            return Sequences(np.roll(bases, -1, axis=1), outputs, np.ones((1, 1), bool))
        return Sequences(bases, outputs, (steps == self.sentence_length - 1)[None])
