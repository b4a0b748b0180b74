"""The adding problem: add the two marked numbers of a long row (Hochreiter & Schmidhuber 1997).

A row has two features a step: a number, uniform in [0, 1), and a mark that is 1 at two steps and 0
elsewhere; one mark is in the first half of the row and one in the second, as in Arjovsky, Shah &
Bengio (2016), section 5.2. The published target is the sum itself, with squared errors; here it is
in which of `n_classes` ranges the sum falls, which are as likely as each other.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Float64, Int64

from lru.dataloaders.base import Dataset, Description, check_at_least, register
from lru.dataloaders.store.writers import DenseWriter

_ROWS_AT_ONCE = 4096


@register
@dataclass(frozen=True)
class Adding(Dataset):
    """Tell in which range the sum of two marked numbers falls; generated."""

    name: ClassVar[str] = "adding-classification"

    n_train: int = 20_000
    """rows to train on"""
    n_val: int = 1_000
    """rows to validate on"""
    n_test: int = 1_000
    """rows to test on"""
    length: int = 200
    """steps of a row"""
    n_classes: int = 10
    """ranges of the sum, all as likely"""
    seed: int = 0
    """of the generator"""

    def __post_init__(self):
        check_at_least(self, n_train=1, n_val=1, n_test=1, length=2, n_classes=2, seed=0)

    def build(self, raw_dir: Path, folder: Path) -> Description:
        """Generate the splits, each from a stream of its own, so that sizes do not interact."""
        del raw_dir
        for stream, split in enumerate(self.split_names):
            rng = np.random.default_rng([self.seed, stream])
            with DenseWriter(folder, split, np.float32, (self.length, 2)) as writer:
                left = getattr(self, f"n_{split}")
                while left:
                    n = min(left, _ROWS_AT_ONCE)
                    writer.append(*self._rows(n, rng))
                    left -= n
        return Description(
            kind="values",
            n_classes=self.n_classes,
            targets="class",
            provenance=f"Generated with seed {self.seed}.",
            comparable=(
                "The published task predicts the sum itself, with squared errors, on rows that are "
                f"new for ever; here it is one of {self.n_classes} ranges as likely as each other, "
                "and train is a fixed set."
            ),
        )

    def _rows(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        rows, half = np.arange(n), self.length // 2
        marked = rng.integers(half, size=n), half + rng.integers(self.length - half, size=n)
        inputs = np.zeros((n, self.length, 2), np.float32)
        inputs[:, :, 0] = rng.random((n, self.length), np.float32)
        for steps in marked:
            inputs[rows, steps, 1] = 1
        # Summed as they are stored, so that a label never depends on what was rounded away.
        first, second = (inputs[rows, steps, 0].astype(np.float64) for steps in marked)
        return inputs, sum_ranges(first + second, self.n_classes)


def sum_ranges(total: Float64[np.ndarray, " n"], n_classes: int) -> Int64[np.ndarray, " n"]:
    """In which of the equally likely ranges a sum of two uniform numbers falls."""
    below = np.where(total < 1, total**2 / 2, 1 - (2 - total) ** 2 / 2)
    return np.minimum((below * n_classes).astype(np.int64), n_classes - 1)
