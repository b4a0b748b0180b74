"""Streams of random numbers that are the same on every machine and with every version of NumPy."""

import numpy as np
from jaxtyping import Float, Int, UInt64


class Stream:
    """A stream of its own for each part of a data set, so that their sizes do not interact.

    Args:
        seed: of the data set.
        part: number of the part, such as a split.
    """

    def __init__(self, seed: int, part: int):
        # NumPy promises the words of a generator, not what its distributions make of them.
        self._words = np.random.Philox(key=[seed, part])

    def raw(self, *shape: int) -> UInt64[np.ndarray, "..."]:
        """Words of 64 random bits."""
        return self._words.random_raw(int(np.prod(shape))).reshape(shape)

    def below(self, bound: Int[np.ndarray, "..."] | int, *shape: int) -> Int[np.ndarray, "..."]:
        """Uniform whole numbers from 0 to below a bound, of at most 32 bits."""
        words = self.raw(*shape) >> np.uint64(32)
        return (words * np.asarray(bound, np.uint64) >> np.uint64(32)).astype(np.int64)

    def unit(self, *shape: int) -> Float[np.ndarray, "..."]:
        """Uniform numbers in [0, 1)."""
        return (self.raw(*shape) >> np.uint64(11)) * 2.0**-53

    def distinct(self, rows: int, count: int, bound: int) -> Int[np.ndarray, "rows count"]:
        """Whole numbers below a bound, in each row all different, in random order.

        Args:
            rows: how many rows.
            count: numbers of a row.
            bound: above the largest.
        """
        pool, each = np.tile(np.arange(bound), (rows, 1)), np.arange(rows)
        for place in range(count):
            chosen = place + self.below(bound - place, rows)
            pool[each, place], pool[each, chosen] = pool[each, chosen], pool[each, place]
        return pool[:, :count]


def power_law(values: Int[np.ndarray, " n"], power: float) -> Int[np.ndarray, " n"]:
    """Weights of a draw, in proportion to a power of positive numbers.

    They are whole, so that their sums are exact and draws the same everywhere.
    """
    return np.rint(2.0**24 * values.astype(float) ** power).astype(np.int64)
