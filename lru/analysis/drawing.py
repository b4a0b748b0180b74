"""Drawings of findings (`lru.tasks.findings`): each a PNG, an animation a GIF."""

import io
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from lru.analysis.plots import INK, as_text, style
from lru.tasks.findings import (
    Animation,
    Bars,
    ConfusionMatrix,
    Curves,
    Drawable,
    HeatMap,
    Histogram,
    Picture,
    PictureGrid,
)

MOST_NUMBERS = 400
"""Cells of a heat map into which their values are written unasked."""

_DPI = 100
_MOST_NAMES = 60
# A picture wider than this is no longer looked at.
_WIDEST = 40

# One drawing at a time: matplotlib is not made for several threads.
_lock = Lock()


class Drawing(NamedTuple):
    """A finding as a file.

    Attributes:
        content: of the file.
        suffix: "png", or "gif" of an animation.
        size: width and height.
    """

    content: bytes
    suffix: str
    size: tuple[int, int]


def drawn(finding: Drawable | Animation) -> Drawing:
    """The drawing of a finding, made once for all who ask for it, from any thread.

    Args:
        finding: what to draw.

    Raises:
        ValueError: if the frames of an animation are not of one size.
    """
    with _lock:
        return _drawn(finding)


@lru_cache(maxsize=16)
def _drawn(finding: Drawable | Animation) -> Drawing:
    content = io.BytesIO()
    if not isinstance(finding, Animation):
        picture = Image.fromarray(_pixels(finding))
        picture.save(content, "PNG")
        return Drawing(content.getvalue(), "png", picture.size)
    first, *others = [Image.fromarray(_pixels(frame)) for frame in _alike(finding.frames)]
    if any(other.size != first.size for other in others):
        sizes = sorted({frame.size for frame in (first, *others)})
        raise ValueError(f"frames of an animation must have one size, got {sizes}")
    milliseconds = round(1000 * finding.seconds)
    first.save(content, "GIF", save_all=True, append_images=others, duration=milliseconds, loop=0)
    return Drawing(content.getvalue(), "gif", first.size)


def _alike(frames: Sequence[Drawable]) -> Sequence[Drawable]:
    """The frames, with the same colours for the same values."""
    open_ended = [f.values for f in frames if isinstance(f, HeatMap) and f.limits is None]
    if not open_ended:
        return frames
    limits = _limits(np.concatenate([values.ravel() for values in open_ended]))
    return [
        replace(f, limits=limits) if isinstance(f, HeatMap) and f.limits is None else f
        for f in frames
    ]


def _limits(values: np.ndarray) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)


def _pixels(finding: Drawable) -> UInt8[np.ndarray, "height width 3"]:
    if isinstance(finding, Picture):
        return finding.pixels
    if isinstance(finding, ConfusionMatrix):
        finding = finding.shares()
    figure = Figure(layout="constrained", dpi=_DPI)
    canvas = FigureCanvasAgg(figure)
    if isinstance(finding, PictureGrid):
        _draw_grid(figure, finding)
    elif isinstance(finding, HeatMap):
        _draw_heat_map(figure, finding)
    elif isinstance(finding, Bars):
        _draw_bars(figure, finding)
    elif isinstance(finding, Curves):
        _draw_curves(figure, finding)
    else:
        _draw_histogram(figure, finding)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _draw_grid(figure: Figure, grid: PictureGrid) -> None:
    count = len(grid.pictures)
    columns = min(grid.n_columns or math.ceil(math.sqrt(count)), count)
    rows = math.ceil(count / columns)
    height, width = np.max([picture.pixels.shape[:2] for picture in grid.pictures], axis=0)
    # Small pictures are enlarged, so that their points can be seen.
    scale = max(1.0, 100 / max(height, width)) / _DPI
    title = 0.25 if grid.titles else 0.05
    figure.set_size_inches(
        min(columns * (width * scale + 0.1), _WIDEST), min(rows * (height * scale + title), _WIDEST)
    )
    cells = figure.subplots(rows, columns, squeeze=False).ravel()
    for k, axes in enumerate(cells):
        axes.set_axis_off()
        if k < count:
            axes.imshow(grid.pictures[k].pixels, interpolation="nearest")
            if grid.titles:
                axes.set_title(grid.titles[k], fontsize=8, color=INK, parse_math=False)


def _draw_heat_map(figure: Figure, shown: HeatMap) -> None:
    rows, columns = shown.values.shape
    numbers = shown.values.size <= MOST_NUMBERS if shown.numbers is None else shown.numbers
    cell = 0.42 if numbers else 0.2
    longest = max([1, *map(len, shown.y_names)])
    figure.set_size_inches(
        min(max(cell * columns + 0.08 * longest + 1.6, 3.0), _WIDEST),
        min(max(cell * rows + 0.08 * max([1, *map(len, shown.x_names)]) + 0.8, 2.4), _WIDEST),
    )
    axes = figure.subplots()
    low, high = shown.limits or _limits(shown.values)
    image = axes.imshow(
        shown.values, "Blues", aspect="auto", interpolation="nearest", vmin=low, vmax=high
    )
    bar = figure.colorbar(image, ax=axes, pad=0.02, fraction=0.05)
    bar.ax.tick_params(length=0, labelsize=7, labelcolor=INK)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    if numbers:
        middle = (low + high) / 2
        # So that two digits of the whole range are seen.
        decimals = min(max(2 - math.floor(math.log10(high - low or 1)), 0), 6)
        for (row, column), value in np.ndenumerate(shown.values):
            if np.isfinite(value):
                colour = "white" if value > middle else INK
                text = f"{round(value, decimals) + 0.0:.{decimals}f}"
                axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=7)
    axes.set_xlabel(shown.x_label, color=INK)
    axes.set_ylabel(shown.y_label, color=INK)
    axes.tick_params(length=0, labelsize=8, labelcolor=INK)
    axes.spines[:].set_visible(False)
    _name(axes, "x", shown.x_names, columns)
    _name(axes, "y", shown.y_names, rows)


def _name(axes: Axes, which: str, names: Sequence[str], count: int) -> None:
    """Names at an axis, every so many where there are too many; whole numbers without names."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    if not names:
        axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        return
    shown = names[:: math.ceil(count / _MOST_NAMES)]
    axis.set_ticks(range(0, count, math.ceil(count / _MOST_NAMES)), shown)
    if which == "x" and max(map(len, shown)) * len(shown) > 8 * axes.figure.get_figwidth():  # pyright: ignore
        axes.tick_params(axis="x", rotation=90)
    as_text(axis.get_ticklabels())


def _draw_bars(figure: Figure, shown: Bars) -> None:
    heights = {name: np.asarray(values, float) for name, values in shown.series.items()}
    count = len(next(iter(heights.values())))
    figure.set_size_inches(min(max(6.4, 0.12 * count * len(heights)), _WIDEST), 3.6)
    axes = figure.subplots()
    width = 0.8 / len(heights)
    for k, (name, values) in enumerate(heights.items()):
        places = np.arange(count) + width * (k - (len(heights) - 1) / 2)
        error = shown.deviations.get(name)
        axes.bar(places, values, width, yerr=error, label=name, error_kw={"elinewidth": 0.8})
    _name(axes, "x", shown.names, count)
    _finish(axes, shown.x_label, shown.y_label, shown.log_scale, len(heights))


def _draw_curves(figure: Figure, shown: Curves) -> None:
    figure.set_size_inches(6.4, 3.6)
    axes = figure.subplots()
    settings: dict[str, Any] = {"marker": "o", "markersize": 3} if shown.markers else {}
    for name, (x, y) in shown.curves.items():
        axes.plot(np.asarray(x), np.asarray(y), label=name, linewidth=1.4, **settings)
    _finish(axes, shown.x_label, shown.y_label, shown.log_scale, len(shown.curves))
    # After the scale, to which what is not given fits itself.
    if shown.x_limits is not None:
        axes.set_xlim(shown.x_limits)
    if shown.y_limits is not None:
        axes.set_ylim(shown.y_limits)


def _draw_histogram(figure: Figure, shown: Histogram) -> None:
    figure.set_size_inches(6.4, 3.6)
    axes = figure.subplots()
    axes.hist(shown.finite(), bins=shown.n_bins)
    _finish(axes, shown.x_label, "number", shown.log_scale, 1)


def _finish(axes: Axes, x_label: str, y_label: str, log_scale: bool, series: int) -> None:
    style(axes)
    axes.set_xlabel(x_label, color=INK)
    axes.set_ylabel(y_label, color=INK)
    if log_scale:
        axes.set_yscale("log")
    if series > 1:
        legend = axes.legend(frameon=False, fontsize=8)
        as_text(legend.get_texts())
