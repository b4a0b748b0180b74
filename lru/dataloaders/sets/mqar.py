"""Multi-query associative recall: the values of several keys, each asked for once, soon or late.

Arora et al. (2024), "Zoology: Measuring and Improving Recall in Efficient Language Models", section
4: the gap between the pairs and a question follows a power law.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Int

from lru.dataloaders.base import Description, check_at_least, register
from lru.dataloaders.sets.generated import Generated, Ids
from lru.dataloaders.sets.streams import Stream, power_law
from lru.dataloaders.store.arrays import NO_TARGET


@register
@dataclass(frozen=True)
class Mqar(Generated):
    """Recall the values of all keys of a row, each where the key comes again; generated.

    Of the tokens the upper half are values, the others keys, except for 0. Pairs come first; the
    n-th place behind them where a key may come, every second step, has a weight of n^(power - 1).
    """

    name: ClassVar[str] = "mqar"
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "mqar-512": {"vocabulary": 512, "n_train": 20_000}
    }

    n_test: int = 3_000
    """rows to test on"""
    vocabulary: int = 8192
    """tokens: 0, the keys and the values"""
    length: int = 64
    """steps of a row"""
    n_pairs: int = 4
    """keys of a row, with their values"""
    power: float = 0.01
    """of the gaps: the smaller, the sooner a key comes again"""
    random_fill: bool = True
    """fill other steps with any tokens, instead of 0"""

    def __post_init__(self):
        super().__post_init__()
        check_at_least(self, n_pairs=1, vocabulary=2 + 2 * self.n_pairs, length=4 * self.n_pairs)
        for option in ("vocabulary", "length"):
            if getattr(self, option) % 2:
                raise ValueError(f"{self.name}: {option} must be even, got {getattr(self, option)}")
        if not 0 < self.power <= 1:
            raise ValueError(f"{self.name}: power must be in (0, 1], got {self.power}")

    def longest(self, split: str) -> int:
        """See `Generated.longest`."""
        del split
        return self.length

    def rows(self, split: str, n: int, stream: Stream) -> tuple[Ids, Ids]:
        """See `Generated.rows`."""
        del split
        half, row = self.vocabulary // 2, np.arange(n)[:, None]
        keys = 1 + stream.distinct(n, self.n_pairs, half - 1)
        values = stream.distinct(n, self.n_pairs, half)
        fill = stream.below(self.vocabulary, n, self.length) if self.random_fill else 0
        tokens = np.broadcast_to(fill, (n, self.length)).copy()
        labels = np.full(tokens.shape, NO_TARGET, np.int32)
        start = 2 * self.n_pairs
        tokens[:, :start:2], tokens[:, 1:start:2] = keys, half + values
        places = start + 2 * self._gaps(n, stream)
        tokens[row, places], labels[row, places] = keys, values
        return tokens + 1, labels

    def _gaps(self, n: int, stream: Stream) -> Int[np.ndarray, "n k"]:
        """Gaps of the keys of each row, all different, drawn one after the other by weight."""
        count = (self.length - 2 * self.n_pairs) // 2
        law = power_law(np.arange(1, count + 1), self.power - 1)
        left, gaps = np.tile(law, (n, 1)), np.empty((n, self.n_pairs), np.int64)
        for key in range(self.n_pairs):
            bounds = left.cumsum(axis=1)
            drawn = stream.below(bounds[:, -1], n)
            gaps[:, key] = (bounds > drawn[:, None]).argmax(axis=1)
            left[np.arange(n), gaps[:, key]] = 0
        return gaps

    def description(self) -> Description:
        """See `Generated.description`."""
        tokens = range(self.vocabulary)
        return Description(
            kind="tokens",
            n_classes=self.vocabulary // 2,
            targets="class_per_step",
            vocabulary=("<pad>", *map(str, tokens)),
            provenance=f"Generated with seed {self.seed}.",
            comparable=(
                "The rules and, by default, the sizes of the easiest published setting, with other "
                "draws; published models choose among all tokens, here among the values. A guess "
                f"is right in 1 of {self.vocabulary // 2} steps."
            ),
        )
