"""Pictures of several trainings: learning curves, and results by option or by group.

Trainings that repeat each other are drawn as their mean: of curves with a band from the least to
the greatest, of results with ends at ± one sample standard deviation.
"""

import itertools
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import color_sequences, colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lru.analysis.plots import DENSE, INK, as_text, running_mean, save_figure, style

_PALETTE = color_sequences["tab10"]

_WIDE = 100
"""Ratio of the largest to the smallest loss from which its axis is logarithmic."""

_MOST_TICKS = 12


Records = Sequence[Mapping[str, Any]]
"""The log of a training: records of quantities by name, each with its "step"."""


class Curve(NamedTuple):
    """Mean and range of a quantity over repetitions, by step.

    Attributes:
        steps: at which any of them has it [T].
        mean: of those that have it [T].
        low: the least of them [T].
        high: the greatest of them [T].
    """

    steps: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def curve_of(repetitions: Sequence[Records], name: str) -> Curve:
    """The curve of a quantity.

    Args:
        repetitions: records of each training, with "step" and quantities by name.
        name: of the quantity; records without it, or where it is not finite, are left out.
    """
    found: dict[int, list[float]] = {}
    for records in repetitions:
        for record in records:
            if name in record and math.isfinite(record[name]):
                found.setdefault(record["step"], []).append(record[name])
    steps = sorted(found)
    values = [found[step] for step in steps]
    mean, low, high = (np.array([of(each) for each in values]) for of in (np.mean, min, max))
    return Curve(np.array(steps), mean, low, high)


def plot_learning_curves(
    groups: Mapping[str, Sequence[Records]], names: Sequence[str], path: str | os.PathLike
) -> None:
    """Draw quantities against updates: a panel for each, one colour a group.

    Args:
        groups: by their labels, the records of each training; see `curve_of`.
        names: of the quantities, such as "train/loss".
        path: the picture to write; its suffix is the format. Atomic.
    """
    figure = Figure(figsize=(6.4, 2.9 * len(names) + 0.5), layout="constrained")
    grid = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
    for axes, name in zip(grid, names, strict=True):
        lowest, highest = _panel(axes, groups, name)
        if name.endswith("loss") and 0 < lowest * _WIDE < highest:
            axes.set_yscale("log")
        axes.set_ylabel(name)
    grid[-1].set_xlabel("update")
    grid[-1].xaxis.get_major_locator().set_params(integer=True)
    _legend(figure, grid[0])
    save_figure(figure, path)


def plot_panels(
    panels: Mapping[str, Mapping[str, Sequence[Records]]],
    x_label: str,
    quantity: str,
    path: str | os.PathLike,
) -> None:
    """Draw one quantity in panels below each other, in each the same groups in the same colours.

    Args:
        panels: by their titles, groups by their labels, as `plot_learning_curves` takes them; a
            group without records keeps its colour.
        x_label: of what takes the place of the step.
        quantity: its name.
        path: the picture to write; its suffix is the format. Atomic.
    """
    figure = Figure(figsize=(6.4, 2.4 * len(panels) + 0.7), layout="constrained")
    grid = figure.subplots(len(panels), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, (title, groups) in zip(grid, panels.items(), strict=True):
        _panel(axes, groups, quantity)
        axes.set_title(title, fontsize=9, color=INK, loc="left", parse_math=False)
        axes.set_ylabel(quantity)
    grid[-1].set_xlabel(x_label)
    _legend(figure, grid[0])
    save_figure(figure, path)


def _panel(axes: Axes, groups: Mapping[str, Sequence[Records]], name: str) -> tuple[float, float]:
    """Draw a quantity of all groups; its least and its greatest mean."""
    lowest, highest = math.inf, -math.inf
    for label, colour in zip(groups, _colours(len(groups)), strict=True):
        curve = curve_of(groups[label], name)
        if not len(curve.steps):
            # Without a line here, the legend still names it.
            axes.plot([], [], color=colour, label=label)
            continue
        _draw(axes, curve, colour, label)
        lowest, highest = min(lowest, curve.mean.min()), max(highest, curve.mean.max())
    style(axes)
    return lowest, highest


def _draw(axes: Axes, curve: Curve, colour: Any, label: str) -> None:
    """Draw a curve and its band; of many points the running mean, with the points behind it."""
    steps, *values = curve
    if len(steps) > DENSE:
        axes.plot(steps, curve.mean, color=colour, linewidth=0.6, alpha=0.3)
        values = [running_mean(value, len(steps) // 40) for value in values]
    mean, low, high = values
    if (low < high).any():
        axes.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
    marker = "o" if len(steps) <= 40 else None
    axes.plot(steps, mean, color=colour, label=label, linewidth=1.6, marker=marker, markersize=3)


def plot_by_option(
    lines: Mapping[str, Mapping[int | float, Sequence[float]]],
    option: str,
    quantity: str,
    path: str | os.PathLike,
) -> None:
    """Draw a quantity against a numeric option: a line for each combination of the others.

    Args:
        lines: by their labels, the values of the repetitions at each value of the option, at least
            one; a line without any keeps its colour.
        option: its name.
        quantity: its name.
        path: the picture to write; its suffix is the format. Atomic.
    """
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    for (label, line), colour in zip(lines.items(), _colours(len(lines)), strict=True):
        if not line:
            continue
        points = sorted((x, *_mean_and_bar(values)) for x, values in line.items())
        x, mean, bar = np.array(points).T
        axes.errorbar(
            *(x, mean),
            yerr=bar,
            color=colour,
            label=label,
            marker="o",
            markersize=4,
            linewidth=1.6,
            capsize=3,
        )
    ticks = sorted({x for line in lines.values() for x in line})
    if ticks[0] > 0 and ticks[-1] / ticks[0] >= 8:
        axes.set_xscale("log")
        axes.minorticks_off()
    if len(ticks) <= _MOST_TICKS:
        axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
    style(axes)
    axes.set(xlabel=option, ylabel=quantity)
    _legend(figure, axes)
    save_figure(figure, path)


def plot_bars(
    values: Mapping[str, Sequence[float]], quantity: str, path: str | os.PathLike
) -> None:
    """Draw a quantity as a bar for each group, with a dot for each repetition.

    Args:
        values: of the repetitions, by label of the group; one without any keeps its colour.
        quantity: its name.
        path: the picture to write; its suffix is the format. Atomic.
    """
    colours = dict(zip(values, _colours(len(values)), strict=True))
    values = {label: each for label, each in values.items() if each}
    figure = Figure(figsize=(6.4, 0.5 * len(values) + 1.1), layout="constrained")
    axes = figure.subplots()
    for place, (label, each) in enumerate(values.items()):
        mean, bar = _mean_and_bar(each)
        axes.barh(place, mean, 0.6, xerr=bar or None, color=colours[label], alpha=0.55, capsize=3)
        # Side by side, so that equal values show.
        offsets = np.linspace(-0.2, 0.2, len(each)) if len(each) > 1 else np.zeros(1)
        axes.plot(each, place + offsets, "o", color=INK, markersize=3)
    axes.set_yticks(range(len(values)), list(values))
    as_text(axes.get_yticklabels())
    axes.invert_yaxis()
    style(axes, grid="x")
    axes.set_xlabel(quantity)
    save_figure(figure, path)


def _mean_and_bar(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation of the finite ones; of a single one 0."""
    finite = np.array([value for value in values if math.isfinite(value)])
    if not len(finite):
        return math.nan, 0.0
    return float(finite.mean()), float(finite.std(ddof=1)) if len(finite) > 1 else 0.0


def _colours(count: int) -> list[Any]:
    """So many colours, which can be told apart while they are few."""
    if count <= len(_PALETTE):
        return list(itertools.islice(_PALETTE, count))
    return list(colormaps["turbo"](np.linspace(0.05, 0.95, count)))


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    longest = max(map(len, labels))
    width = figure.get_figwidth()
    # A character is about a fourteenth of an inch wide, and a key as wide as eight.
    rows = math.ceil(len(labels) / max(1, int(14 * width / (longest + 8))))
    columns = math.ceil(len(labels) / rows)
    legend = figure.legend(
        *(handles, labels), loc="outside lower center", ncols=columns, frameon=False, fontsize=9
    )
    as_text(legend.get_texts())
