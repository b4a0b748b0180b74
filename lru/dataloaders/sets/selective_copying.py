"""Selective copying: repeat a few symbols in order that are strewn among many blanks.

Gu & Dao (2023), "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", section 4.1.1,
with length=4096; by default in the size of Poli et al. (2024), "Mechanistic Design and Scaling of
Hybrid Architectures".
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lru.dataloaders.base import Description, check_at_least, register
from lru.dataloaders.sets.generated import Generated, Ids
from lru.dataloaders.sets.streams import Stream
from lru.dataloaders.store.arrays import NO_TARGET


@register
@dataclass(frozen=True)
class SelectiveCopying(Generated):
    """Repeat the symbols of a row of blanks, in their order; generated."""

    name: ClassVar[str] = "selective-copying"

    n_train: int = 12_800
    """rows to train on"""
    n_val: int = 1_280
    """rows to validate on"""
    n_test: int = 1_280
    """rows to test on"""
    vocabulary: int = 16
    """tokens: symbols, the blank, and the marker of steps with a target"""
    length: int = 256
    """steps with symbols and blanks; n_tokens steps with markers follow"""
    n_tokens: int = 16
    """symbols to repeat"""

    def __post_init__(self):
        super().__post_init__()
        check_at_least(self, vocabulary=4, n_tokens=1, length=self.n_tokens)

    def longest(self, split: str) -> int:
        """See `Generated.longest`."""
        del split
        return self.length + self.n_tokens

    def rows(self, split: str, n: int, stream: Stream) -> tuple[Ids, Ids]:
        """See `Generated.rows`."""
        blank, marker = self.vocabulary - 1, self.vocabulary
        symbols = stream.below(self.vocabulary - 2, n, self.n_tokens)
        places = np.sort(stream.distinct(n, self.n_tokens, self.length), axis=1)
        ids = np.full((n, self.longest(split)), blank)
        ids[:, self.length :] = marker
        np.put_along_axis(ids, places, symbols + 1, axis=1)
        labels = np.full(ids.shape, NO_TARGET, np.int32)
        labels[:, self.length :] = symbols
        return ids, labels

    def description(self) -> Description:
        """See `Generated.description`."""
        n_symbols = self.vocabulary - 2
        return Description(
            kind="tokens",
            n_classes=n_symbols,
            targets="class_per_step",
            vocabulary=("<pad>", *map(str, range(n_symbols)), "<blank>", "<go>"),
            provenance=f"Generated with seed {self.seed}.",
            comparable=(
                "The rules of the published task, which draws new rows for ever and has 4,096 "
                "steps; here train is a fixed set. A guess is right in 1 of "
                f"{n_symbols} steps with a target."
            ),
        )
