"""Sequences to repeat: a fixed set of distinct rows of random symbols, each its own target.

The sets of Csordás et al. 2024 (arXiv 2408.10920), drawn by a generator that depends on nothing but
its seed. Lengths are uniform before rows that occurred already are rejected, so that there are few
short ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Shaped, UInt8

from lru.dataloaders.base import Dataset, Description, check_at_least, register
from lru.dataloaders.sets.streams import Stream
from lru.dataloaders.store.arrays import NO_TARGET
from lru.dataloaders.store.writers import RaggedWriter

VALIDATION_SHARE = 0.2
"""Most of the sequences of one length that a split to validate on may take."""

SYMBOLS = "0123456789abcdefghijklmnopqrstuvwxyz"
MOST_SYMBOLS = 254


class Draw(NamedTuple):
    """Rule of the rows of a split.

    Attributes:
        option: of the data set, that is their number.
        shortest: least number of symbols.
        longest: largest.
        repeats: how often symbols occur: "any", each at most "once", or one of them "thrice" and
            the others once.
        capped: whether at most `VALIDATION_SHARE` of the sequences of a length are taken.
    """

    option: str
    shortest: int
    longest: int
    repeats: str = "any"
    capped: bool = False

    def count(self, length: int, symbols: int) -> int:
        """Number of sequences of one length that the rule allows."""
        if self.repeats == "any":
            found = symbols**length
        else:
            distinct = length if self.repeats == "once" else length - 2
            found = _falling(symbols, distinct)
            if self.repeats == "thrice":
                found *= length * (length - 1) * (length - 2) // 6
        return int(VALIDATION_SHARE * found) if self.capped else found

    def possible(self, symbols: int) -> int:
        """Number of sequences that the rule allows."""
        return sum(self.count(n, symbols) for n in range(self.shortest, self.longest + 1))


def _is_train(split: str) -> bool:
    return "train" in split


def _falling(n: int, k: int) -> int:
    """Falling factorial n (n - 1) ... (n - k + 1)."""
    return int(np.prod([n - i for i in range(k)], dtype=object)) if k <= n else 0


@register
@dataclass(frozen=True)
class Repeat(Dataset):
    """Distinct sequences of random symbols, to be repeated; generated."""

    name: ClassVar[str] = "repeat"
    task: ClassVar[str] = "repeat"
    separator: ClassVar[str] = ""
    split_names: ClassVar[tuple[str, ...]] = (
        *("train", "val", "longer_1", "longer_2", "longer_1_norepeat"),
        *("fixed_train", "fixed", "fixed_norepeat", "rep_3"),
    )
    optional_splits: ClassVar[tuple[str, ...]] = ("longer_1_norepeat", "fixed_norepeat", "rep_3")

    n_train: int = 1_000_000
    """rows to train on, of all lengths, and as many of max_length (fixed_train)"""
    n_val: int = 5_000
    """rows to validate on, of all lengths, and as many of max_length (fixed, fixed_norepeat)"""
    n_more: int = 1_000
    """rows that are one and two symbols longer (longer_1, longer_2), one longer without a symbol
    that occurs twice (longer_1_norepeat), and in which one occurs three times (rep_3)"""
    n_symbols: int = 30
    """different symbols"""
    min_length: int = 2
    """fewest symbols of a row"""
    max_length: int = 9
    """most symbols of a row to train on"""
    seed: int = 0
    """of the generator"""

    def __post_init__(self):
        check_at_least(self, n_train=1, n_val=1, n_more=1, n_symbols=2, min_length=1, seed=0)
        check_at_least(self, max_length=self.min_length)
        if self.n_symbols > MOST_SYMBOLS:
            raise ValueError(
                f"{self.name}: n_symbols is {self.n_symbols}, but at most {MOST_SYMBOLS} fit"
            )
        draws = self.draws()
        # All that train must leave out; some of it may be of other lengths.
        evaluated = sum(
            getattr(self, draw.option)
            for split, draw in draws.items()
            if not _is_train(split) and draw.longest == self.max_length
        )
        for split, draw in draws.items():
            possible = draw.possible(self.n_symbols) - evaluated * _is_train(split)
            if getattr(self, draw.option) > possible:
                raise ValueError(
                    f"{self.name}: {draw.option} is {getattr(self, draw.option)}, but {split} has "
                    f"at most {max(possible, 0)} different sequences of {draw.shortest} to "
                    f"{draw.longest} of {self.n_symbols} symbols"
                )

    def draws(self) -> dict[str, Draw]:
        """The rules of all splits."""
        low, high = self.min_length, self.max_length
        draws = {
            "train": Draw("n_train", low, high),
            "val": Draw("n_val", low, high, capped=True),
            "longer_1": Draw("n_more", high + 1, high + 1),
            "longer_2": Draw("n_more", high + 2, high + 2),
            "longer_1_norepeat": Draw("n_more", high + 1, high + 1, "once"),
            "fixed_train": Draw("n_train", high, high),
            "fixed": Draw("n_val", high, high, capped=True),
            "fixed_norepeat": Draw("n_val", high, high, "once"),
            "rep_3": Draw("n_more", max(low, 3), high, "thrice"),
        }
        return {
            name: draw
            for name, draw in draws.items()
            if draw.repeats == "any" or draw.shortest <= draw.longest <= self.n_symbols
        }

    def build(self, raw_dir: Path, folder: Path) -> Description:
        """Draw the splits, each from a stream of its own; those to train on have no row of others.

        The others may have rows in common.
        """
        del raw_dir
        draws = self.draws()
        evaluated: list[np.ndarray] = []
        for split in sorted(draws, key=_is_train):
            stream = Stream(self.seed, self.split_names.index(split))
            rows, excluded = getattr(self, draws[split].option), evaluated * _is_train(split)
            ids = _distinct(draws[split], rows, self.n_symbols, stream, excluded)
            if not _is_train(split):
                evaluated.append(ids)
            with RaggedWriter(folder, split, np.uint8) as writer:
                lengths = np.count_nonzero(ids, axis=1)
                writer.append(ids[ids > 0], lengths, np.full(len(ids), NO_TARGET, np.int32))
        symbols = SYMBOLS if self.n_symbols <= len(SYMBOLS) else map(str, range(self.n_symbols))
        return Description(
            kind="tokens",
            n_classes=self.n_symbols,
            targets="tokens",
            vocabulary=("<pad>", *list(symbols)[: self.n_symbols]),
            provenance=f"Generated with seed {self.seed}.",
            comparable=(
                "The published sets follow the same rules with other draws, and their train has "
                "some of the rows of rep_3; here it has none that is evaluated."
            ),
        )


def _distinct(
    draw: Draw,
    count: int,
    symbols: int,
    stream: Stream,
    excluded: Sequence[np.ndarray],
) -> UInt8[np.ndarray, "count width"]:
    """The first rows of a stream that differ from one another and from those excluded.

    Returns:
        Ids from 1, with zeros behind the ends of rows.
    """
    width = draw.longest
    # Longer rows can be none of these.
    others = [np.pad(x, ((0, 0), (0, max(width - x.shape[1], 0)))) for x in excluded]
    found = np.concatenate(
        [np.zeros((0, width), np.uint8)] + [x[:, :width] for x in others if x.shape[1] == width]
    )
    n_excluded = len(found)
    caps = [draw.count(n, symbols) for n in range(width + 1)]
    while True:
        found = np.concatenate([found, _rows(draw, count, symbols, stream)])
        _, first = np.unique(_as_keys(found), return_index=True)
        rows = found[np.sort(first[first >= n_excluded])]
        if draw.capped:
            rows = rows[_within(np.count_nonzero(rows, axis=1), caps)]
        if len(rows) >= count:
            return rows[:count]


def _within(lengths: Int[np.ndarray, " n"], caps: Sequence[int]) -> Bool[np.ndarray, " n"]:
    """True for rows of which no more than the cap of their length come before and with them."""
    inside = np.zeros(len(lengths), bool)
    for length, cap in enumerate(caps):
        inside[np.flatnonzero(lengths == length)[:cap]] = True
    return inside


def _as_keys(rows: UInt8[np.ndarray, "n T"]) -> Shaped[np.ndarray, " n"]:
    """Rows as single values, to compare."""
    return np.ascontiguousarray(rows).view(np.dtype((np.void, rows.shape[1])))[:, 0]


def _rows(draw: Draw, n: int, symbols: int, stream: Stream) -> UInt8[np.ndarray, "n width"]:
    """Rows by a rule, some of which may be alike."""
    width = draw.longest
    lengths = draw.shortest + stream.below(width - draw.shortest + 1, n)
    # A symbol of its own for each place, where they must differ: the first of a permutation.
    if draw.repeats == "any":
        ids = stream.below(symbols, n, width) + 1
    else:
        ids = np.argsort(stream.raw(n, symbols), axis=1)[:, :width] + 1
    if draw.repeats == "thrice":
        # The first symbol also takes two of the other places, and then any place.
        order = np.argsort(
            np.where(np.arange(width) < lengths[:, None], stream.unit(n, width), 2.0), axis=1
        )
        places = order[:, :3]
        np.put_along_axis(ids, places, np.take_along_axis(ids, places[:, :1], axis=1), axis=1)
    return np.where(np.arange(width) < lengths[:, None], ids, 0).astype(np.uint8)
