"""Findings of an evaluation beside its metrics: data with labels, which every tracker can show.

`lru.analysis.drawing` draws them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Num, UInt8
from numpy.typing import ArrayLike

# Findings are told apart by identity: arrays have no hash.


@dataclass(frozen=True, eq=False)
class Table:
    """Rows to read, such as examples and what the model makes of them.

    Attributes:
        columns: their names.
        rows: a text or a number for each column.
    """

    columns: tuple[str, ...]
    rows: Sequence[tuple[str | int | float, ...]]


@dataclass(frozen=True, eq=False)
class Picture:
    """An image.

    Attributes:
        pixels: red, green and blue of every point.
    """

    pixels: UInt8[np.ndarray, "height width 3"]


@dataclass(frozen=True, eq=False)
class PictureGrid:
    """Images side by side, in rows.

    Attributes:
        pictures: of any sizes, row after row.
        titles: above each picture; empty for none.
        n_columns: pictures in a row; None for about as many as there are rows.
    """

    pictures: Sequence[Picture]
    titles: Sequence[str] = ()
    n_columns: int | None = None

    def __post_init__(self):
        """Check the numbers.

        Raises:
            ValueError: if there is no picture, or not a title for each.
        """
        if not self.pictures:
            raise ValueError("pictures must be at least one, got none")
        _check_names("titles", self.titles, len(self.pictures))


@dataclass(frozen=True, eq=False)
class HeatMap:
    """Colours of a matrix.

    Attributes:
        values: from top to bottom and left to right; NaN stays white.
        x_label: of the columns.
        y_label: of the rows.
        x_names: of each column; empty to number them.
        y_names: of each row; empty to number them.
        limits: values at the ends of the colours; None for the least and the greatest.
        numbers: write the values into the cells; None if there are few.
    """

    values: Num[np.ndarray, "rows columns"]
    x_label: str = ""
    y_label: str = ""
    x_names: Sequence[str] = ()
    y_names: Sequence[str] = ()
    limits: tuple[float, float] | None = None
    numbers: bool | None = None

    def __post_init__(self):
        """Check the shapes.

        Raises:
            ValueError: if the values are no matrix, or not a name is given for each row or column.
        """
        if self.values.ndim != 2 or 0 in self.values.shape:
            raise ValueError(f"values must be a matrix, got shape {self.values.shape}")
        _check_names("y_names", self.y_names, self.values.shape[0])
        _check_names("x_names", self.x_names, self.values.shape[1])


@dataclass(frozen=True, eq=False)
class ConfusionMatrix:
    """Counts of predicted classes by real class; its rows are drawn as shares of the real class.

    Attributes:
        counts: how often a class (row) was taken for another (column).
        names: of the classes; empty to number them.
    """

    counts: Num[np.ndarray, "C C"]
    names: Sequence[str] = ()

    def __post_init__(self):
        """Check the shape.

        Raises:
            ValueError: if the counts are not square, or not a name is given for each class.
        """
        if self.counts.ndim != 2 or len({*self.counts.shape}) != 1 or self.counts.size == 0:
            raise ValueError(f"counts must be a square matrix, got shape {self.counts.shape}")
        _check_names("names", self.names, len(self.counts))

    def shares(self) -> HeatMap:
        """The share of each real class that was taken for each class; NaN without any example."""
        totals = self.counts.sum(axis=1, keepdims=True)
        shares = np.divide(
            self.counts, totals, out=np.full(self.counts.shape, np.nan), where=totals > 0
        )
        return HeatMap(shares, "predicted", "real", self.names, self.names, limits=(0.0, 1.0))


@dataclass(frozen=True, eq=False)
class Bars:
    """Bars, of several series side by side.

    Attributes:
        series: heights of the bars of each series, by its name.
        names: of the bars of a series; empty to number them.
        deviations: half the length of the lines on the bars, by series; only of some, if at all.
        x_label: of the bars.
        y_label: of the heights.
        log_scale: heights in powers of ten.
    """

    series: Mapping[str, ArrayLike]
    names: Sequence[str] = ()
    deviations: Mapping[str, ArrayLike] = field(default_factory=dict)
    x_label: str = ""
    y_label: str = ""
    log_scale: bool = False

    def __post_init__(self):
        """Check the lengths.

        Raises:
            ValueError: if there is no series, their lengths differ, or a deviation is of none.
        """
        lengths = {np.shape(heights) for heights in self.series.values()}
        if len(lengths) != 1 or len(next(iter(lengths))) != 1:
            raise ValueError(f"series must have as many heights each, got {_shapes(self.series)}")
        _check_names("names", self.names, next(iter(lengths))[0])
        if any(np.shape(v) != np.shape(self.series.get(n, 0)) for n, v in self.deviations.items()):
            raise ValueError(
                "deviations must be of series, and as many as heights, "
                f"got {_shapes(self.deviations)}"
            )


@dataclass(frozen=True, eq=False)
class Curves:
    """Curves through points (x, y).

    Attributes:
        curves: x and y of each point [n], by the name of the curve.
        x_label: of x.
        y_label: of y.
        x_limits: ends of the axis; None to fit the points.
        y_limits: ends of the axis; None to fit the points.
        log_scale: y in powers of ten.
        markers: mark the points.
    """

    curves: Mapping[str, tuple[ArrayLike, ArrayLike]]
    x_label: str = ""
    y_label: str = ""
    x_limits: tuple[float, float] | None = None
    y_limits: tuple[float, float] | None = None
    log_scale: bool = False
    markers: bool = False

    def __post_init__(self):
        """Check the shapes.

        Raises:
            ValueError: if a curve has not one y for each x.
        """
        for name, (x, y) in self.curves.items():
            if np.ndim(x) != 1 or np.shape(x) != np.shape(y):
                raise ValueError(
                    f"curves must have one y for each x, but {name!r} has shapes "
                    f"{np.shape(x)} and {np.shape(y)}"
                )


@dataclass(frozen=True, eq=False)
class Histogram:
    """Numbers of values between bounds.

    Attributes:
        values: of any shape; those that are not finite are left out.
        n_bins: number of bars.
        x_label: of the values.
        log_scale: counts in powers of ten.
    """

    values: ArrayLike
    n_bins: int = 64
    x_label: str = ""
    log_scale: bool = False

    def finite(self) -> np.ndarray:
        """The values that are finite [n]."""
        values = np.ravel(np.asarray(self.values, float))
        return values[np.isfinite(values)]


Drawable = Picture | PictureGrid | HeatMap | ConfusionMatrix | Bars | Curves | Histogram
"""Findings that are drawn as one picture."""


@dataclass(frozen=True, eq=False)
class Animation:
    """Pictures that follow each other.

    Attributes:
        frames: of one kind, with as many rows, columns or bars. Heat maps without `limits` share
            those of all.
        seconds: that each is shown for.
    """

    frames: Sequence[Drawable]
    seconds: float = 0.5

    def __post_init__(self):
        """Check the frames.

        Raises:
            ValueError: if there is none, or a time is not positive.
        """
        if not self.frames or self.seconds <= 0:
            raise ValueError(
                "an animation must have frames, each shown for some time, got "
                f"{len(self.frames)} for {self.seconds} seconds"
            )


Finding = Table | Drawable | Animation
Findings = Mapping[str, Finding]
"""Findings by name; a name with a slash lies in a folder."""


def _check_names(argument: str, names: Sequence[str], count: int) -> None:
    if names and len(names) != count:
        raise ValueError(f"{argument} must be {count}, or empty, got {len(names)}")


def _shapes(arrays: Mapping[str, ArrayLike]) -> str:
    return ", ".join(f"{n} of shape {np.shape(array)}" for n, array in arrays.items()) or "none"
