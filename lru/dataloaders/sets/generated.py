"""Rows of tokens that are generated, each split from a stream of its own."""

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from lru.dataloaders.base import Dataset, Description, check_at_least
from lru.dataloaders.sets.streams import Stream
from lru.dataloaders.store.writers import RaggedWriter

_ROWS_AT_ONCE = 1024

Ids = Int[np.ndarray, "n T"]
"""Ids of tokens from 1 on; 0 behind the end of a row."""

Labels = Int[np.ndarray, " n"] | Int[np.ndarray, "n T"]


@dataclass(frozen=True)
class Generated(Dataset):
    """Base of data sets of generated rows of tokens."""

    n_train: int = 100_000
    """rows to train on"""
    n_val: int = 1_000
    """rows to validate on"""
    n_test: int = 2_000
    """rows to test on"""
    seed: int = 0
    """of the generator"""

    def __post_init__(self):
        check_at_least(self, n_train=1, n_val=1, n_test=1, seed=0)

    @abstractmethod
    def description(self) -> Description:
        """Facts for the card."""

    @abstractmethod
    def longest(self, split: str) -> int:
        """Most steps of a row of a split."""

    @abstractmethod
    def rows(self, split: str, n: int, stream: Stream) -> tuple[Ids, Labels]:
        """Some rows with their labels.

        Args:
            split: of which they are.
            n: how many.
            stream: source of all that is random.
        """

    def build(self, raw_dir: Path, folder: Path) -> Description:
        """Generate the splits."""
        del raw_dir
        facts = self.description()
        dtype = np.min_scalar_type(len(facts.vocabulary or ()) - 1)
        for number, split in enumerate(self.split_names):
            stream, left = Stream(self.seed, number), getattr(self, f"n_{split}")
            steps = self.longest(split) if facts.targets == "class_per_step" else None
            with RaggedWriter(folder, split, dtype, steps=steps) as writer:
                while left:
                    # As many are always drawn, so that fewer rows are the first of more.
                    ids, labels = (x[:left] for x in self.rows(split, _ROWS_AT_ONCE, stream))
                    writer.append(ids[ids > 0], np.count_nonzero(ids, axis=1), labels)
                    left -= len(ids)
        return facts
