"""Sequences of words of bits: a word of i bits is read and one is predicted at each step.

They are the data of the quantum recurrent network (Bausch, "Recurrent Quantum Neural Networks",
NeurIPS 2020), whose lanes each hold one bit, the first lane the most significant. A sequence of L
input words and L output words is a row of T = L - 1 steps: step t reads input t and predicts output
t + 1, so that the last input and the first output have no part in it. An output that the original
does not score, and fixes to its value by post-selection, is a class that is given.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from lru.dataloaders.base import Dataset, Description, check_at_least
from lru.dataloaders.store.arrays import given
from lru.dataloaders.store.writers import RaggedWriter

_ROWS_AT_ONCE = 4096


class Sequences(NamedTuple):
    """Words of some rows.

    Attributes:
        inputs: words that are read, `[n, L]`, the last of them never.
        outputs: words to predict, `[n, L]`, the first of them never.
        scored: True for outputs that are predicted, False for those that are given, `[n, L]` or
            what broadcasts to it.
    """

    inputs: Int[np.ndarray, "n L"]
    outputs: Int[np.ndarray, "n L"]
    scored: Bool[np.ndarray, "#n #L"]


@dataclass(frozen=True)
class BitWords(Dataset):
    """Words of `n_bits` bits as tokens, each one more than the word, and as classes a step.

    Attributes:
        texts: of the words from 0 on; those beyond the end are shown as their bits.
    """

    texts: ClassVar[Sequence[str]] = ()

    @property
    @abstractmethod
    def n_bits(self) -> int:
        """Bits of a word."""

    def write(self, folder: Path, split: str, steps: int, parts: Iterable[Sequences]) -> None:
        """Store a split.

        Args:
            folder: where it goes.
            split: its name.
            steps: T of each row.
            parts: its rows, some after the others.
        """
        with RaggedWriter(folder, split, np.uint8, steps=steps) as writer:
            for inputs, outputs, scored in parts:
                rows, outputs = len(inputs), outputs[:, 1:]
                scored = np.broadcast_to(scored, (rows, steps + 1))[:, 1:]
                labels = np.where(scored, outputs, given(outputs))
                writer.append(inputs[:, :-1].ravel() + 1, np.full(rows, steps), labels)

    def described(
        self, provenance: str, comparable: str, groups: tuple[int, ...] | None = None
    ) -> Description:
        """Facts of the card.

        Args:
            provenance: which files, or how generated.
            comparable: how numbers compare with published ones.
            groups: numbers of rows of the groups of train.
        """
        words = range(2**self.n_bits)
        texts = [*self.texts, *(f"{word:0{self.n_bits}b}" for word in words[len(self.texts) :])]
        return Description(
            kind="tokens",
            n_classes=len(words),
            targets="class_per_step",
            vocabulary=("", *texts),
            provenance=provenance,
            comparable=comparable,
            groups=groups,
        )


@dataclass(frozen=True)
class DrawnWords(BitWords):
    """Sequences of one length, drawn at random.

    Attributes:
        least_length: the shortest sequence that there can be.
    """

    least_length: ClassVar[int] = 2

    n_train: int = 50_000
    """rows to train on"""
    n_val: int = 256
    """rows to validate on"""
    n_test: int = 256
    """rows to test on"""
    sentence_length: int = 20
    """words of a sequence, L; a row has one step fewer"""
    seed: int = 0
    """of the draws"""

    def __post_init__(self):
        check_at_least(
            self, n_train=1, n_val=1, n_test=1, sentence_length=self.least_length, seed=0
        )

    def write_drawn(
        self, folder: Path, split: str, draw: Callable[[int, np.random.Generator], Sequences]
    ) -> None:
        """Store a split drawn from a stream of its own, so that sizes do not interact.

        Args:
            folder: where it goes.
            split: its name.
            draw: sequences, from their number and the stream.
        """
        rng = np.random.default_rng([self.seed, self.split_names.index(split)])
        rows = getattr(self, f"n_{split}")
        sizes = [min(_ROWS_AT_ONCE, rows - start) for start in range(0, rows, _ROWS_AT_ONCE)]
        parts = (draw(size, rng) for size in sizes)
        self.write(folder, split, self.sentence_length - 1, parts)


@dataclass(frozen=True)
class GeneratedWords(DrawnWords):
    """Sequences that are made, not read."""

    @abstractmethod
    def draw(self, n: int, rng: np.random.Generator) -> Sequences:
        """Sequences of `sentence_length` words.

        Args:
            n: how many.
            rng: source of all that is random.
        """

    def build(self, raw_dir: Path, folder: Path) -> Description:
        """Generate the splits."""
        del raw_dir
        for split in self.split_names:
            self.write_drawn(folder, split, self.draw)
        return self.described(
            f"Generated with seed {self.seed}.",
            "The original draws new rows at every update and for every validation; here train, val "
            "and test are independent draws that stay the same.",
        )
