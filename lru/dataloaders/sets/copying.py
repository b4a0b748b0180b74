"""The copy task: recall a pattern of symbols after a delay.

A row is `pattern, blank × (delay - 1), go, blank × pattern_length`; the targets are the pattern, at
the last `pattern_length` steps. The task of Hochreiter & Schmidhuber (1997) in the form of
Arjovsky, Shah & Bengio (2016), section 5.1.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from lru.dataloaders.base import Dataset, Description, check_at_least, register
from lru.dataloaders.store.arrays import NO_TARGET
from lru.dataloaders.store.writers import RaggedWriter

_ROWS_AT_ONCE = 4096


@register
@dataclass(frozen=True)
class Copy(Dataset):
    """Recall a pattern of symbols after a delay; generated."""

    name: ClassVar[str] = "copy-classification"

    n_train: int = 20_000
    """rows to train on"""
    n_val: int = 1_000
    """rows to validate on"""
    n_test: int = 1_000
    """rows to test on"""
    n_symbols: int = 8
    """different symbols, which are the classes"""
    pattern_length: int = 10
    """symbols to recall"""
    delay: int = 100
    """steps from the pattern's end to the first target"""
    seed: int = 0
    """of the generator"""

    def __post_init__(self):
        check_at_least(
            self, n_train=1, n_val=1, n_test=1, n_symbols=2, pattern_length=1, delay=1, seed=0
        )
        if self.n_symbols > 253:
            raise ValueError(f"{self.name}: n_symbols is {self.n_symbols}, but at most 253 fit")

    def build(self, raw_dir: Path, folder: Path) -> Description:
        """Generate the splits, each from a stream of its own, so that sizes do not interact."""
        del raw_dir
        for stream, split in enumerate(self.split_names):
            rng = np.random.default_rng([self.seed, stream])
            with RaggedWriter(folder, split, np.uint8, steps=self._length) as writer:
                left = getattr(self, f"n_{split}")
                while left:
                    n = min(left, _ROWS_AT_ONCE)
                    inputs, labels = self._rows(n, rng)
                    writer.append(inputs.ravel(), np.full(n, self._length), labels)
                    left -= n
        symbols = tuple(str(symbol) for symbol in range(self.n_symbols))
        return Description(
            kind="tokens",
            n_classes=self.n_symbols,
            targets="class_per_step",
            vocabulary=("<pad>", *symbols, "<blank>", "<go>"),
            provenance=f"Generated with seed {self.seed}.",
            comparable=(
                "The published task draws new rows for ever; here train is a fixed set, and val "
                "and test are independent draws."
            ),
        )

    @property
    def _length(self) -> int:
        return 2 * self.pattern_length + self.delay

    def _rows(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        blank, go = self.n_symbols + 1, self.n_symbols + 2
        pattern = rng.integers(self.n_symbols, size=(n, self.pattern_length), dtype=np.uint8)
        inputs = np.full((n, self._length), blank, np.uint8)
        inputs[:, : self.pattern_length] = pattern + 1
        inputs[:, self.pattern_length + self.delay - 1] = go
        labels = np.full(inputs.shape, NO_TARGET, np.int32)
        labels[:, -self.pattern_length :] = pattern
        return inputs, labels
