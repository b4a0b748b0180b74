"""Pictures of runs and models: learning curves, eigenvalues, states and gates by step."""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

INK = "#333333"
COLOURS = {"train": "#8c9bb0", "val": "#2a6fbb", "test": "#d9822b"}
INITIAL_COLOUR = "#9a9a9a"
TRAINED_COLOUR = COLOURS["val"]

DENSE = 150
"""Above so many points a curve is drawn faint, with its running mean on top."""

_MAX_COLUMNS = 4

# Tokens that would leave no mark on the paper.
_VISIBLE = {" ": "␣", "\n": "↵", "\t": "⇥", "": "∅"}


def plot_curves(records: Sequence[Mapping[str, Any]], path: str | os.PathLike) -> None:
    """Draw loss and accuracy against the step; of texts, perplexity in place of accuracy.

    Args:
        records: lines of metrics.jsonl, each with "step" and any of "train/loss", "val/loss",
            "test/loss" and the same of "accuracy" or "perplexity"; other names are ignored.
        path: the picture to write; its suffix is the format. Atomic.
    """
    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    of_text = any(name.endswith("/perplexity") for record in records for name in record)
    quantities = ("loss", "perplexity" if of_text else "accuracy")
    for axes, quantity in zip(figure.subplots(1, 2), quantities, strict=True):
        drawn = [_draw_curve(axes, records, split, quantity) for split in COLOURS]
        style(axes)
        axes.set(xlabel="step", title=quantity)
        axes.xaxis.get_major_locator().set_params(integer=True)
        if any(drawn):
            axes.legend(frameon=False)
        else:
            axes.set_axis_off()
            axes.text(0.5, 0.5, "not logged", ha="center", transform=axes.transAxes, color=INK)
    save_figure(figure, path)


def plot_eigenvalues(
    initial: Mapping[str, ArrayLike], trained: Mapping[str, ArrayLike], path: str | os.PathLike
) -> None:
    """Draw every layer's eigenvalues in the complex plane, with the unit circle.

    Args:
        initial: complex [N] by name of layer, before training.
        trained: the same after training.
        path: the picture to write; its suffix is the format. Atomic.

    Raises:
        ValueError: if there is no layer, or the two name different layers.
    """
    if not initial or set(initial) != set(trained):
        raise ValueError(
            "initial and trained must name the same layers, at least one; "
            f"initial has {sorted(initial)}, trained has {sorted(trained)}"
        )
    rows = math.ceil(len(initial) / _MAX_COLUMNS)
    columns = math.ceil(len(initial) / rows)
    figure = Figure(figsize=(2.6 * columns + 0.4, 2.9 * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    pairs = {
        name: tuple(np.asarray(m[name], complex) for m in (initial, trained)) for name in initial
    }
    radii = [_radius(values) for pair in pairs.values() for values in pair]
    extent = 1.08 * max([1.0, *filter(math.isfinite, radii)])
    for axes, (name, (before, after)) in zip(grid, pairs.items(), strict=False):
        axes.add_patch(Circle((0, 0), 1, fill=False, color=INK, linewidth=0.8))
        axes.axhline(0, color=INK, linewidth=0.3)
        axes.axvline(0, color=INK, linewidth=0.3)
        area = 14 if len(before) <= 256 else 7
        axes.scatter(
            np.real(before),
            np.imag(before),
            s=area,
            facecolors="none",
            edgecolors=INITIAL_COLOUR,
            linewidths=0.6,
            label="initial",
        )
        axes.scatter(
            np.real(after),
            np.imag(after),
            s=0.6 * area,
            color=TRAINED_COLOUR,
            linewidths=0,
            alpha=0.85,
            label="trained",
        )
        axes.set_title(f"{name}\nmax |λ|  {_radius(before):.3f} → {_radius(after):.3f}", fontsize=9)
        axes.set(xlim=(-extent, extent), ylim=(-extent, extent), aspect="equal")
        axes.set(xticks=[-1, 0, 1], yticks=[-1, 0, 1])
        axes.tick_params(labelsize=7, length=0, labelcolor=INK)
        axes.spines[:].set_visible(False)
    for axes in grid[len(pairs) :]:
        axes.remove()
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=2,
        frameon=False,
        fontsize=9,
        handletextpad=0,
    )
    save_figure(figure, path)


def plot_observed(
    observed: Mapping[str, ArrayLike], words: Sequence[str] | None, path: str | os.PathLike
) -> None:
    """Draw what happens inside one layer at every step: a heat map of its units for each name.

    Gates have colours from 0 to 1, complex values those of their modulus, and others colours that
    are symmetric about zero.

    Args:
        observed: by name, such as "state" and "forget_gate", values [T, N]; N may differ, as that
            of a state and of the gates of its heads.
        words: what was read [T]; None to number the steps.
        path: the picture to write; its suffix is the format. Atomic.

    Raises:
        ValueError: if there is nothing to draw, or the numbers of steps differ.
    """
    panels = {name: np.asarray(values) for name, values in observed.items()}
    shapes = [values.shape for values in panels.values()]
    steps = shapes[0][0] if shapes and shapes[0] else 0
    fit = all(len(shape) == 2 and shape[0] == steps and 0 not in shape for shape in shapes)
    if not (shapes and fit) or (words is not None and len(words) != steps):
        read = "" if words is None else f" for {len(words)} words"
        raise ValueError(
            "observed must have values [T, N] of the same T, the number of words, got "
            f"{', '.join(map(str, shapes)) or 'none'}{read}"
        )
    width = min(max(0.17 * steps + 1.6, 4.8), 200)
    heights = [min(max(0.09 * units + 0.4, 1.3), 2.6) for _, units in shapes]
    figure = Figure(figsize=(width, sum(heights) + 0.6), layout="constrained")
    grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (name, values) in zip(grid, panels.items(), strict=True):
        is_complex = np.iscomplexobj(values)
        values = np.abs(values) if is_complex else values
        image = axes.imshow(
            values.T, aspect="auto", interpolation="nearest", **_colours(name, values, is_complex)
        )
        bar = figure.colorbar(image, ax=axes, pad=0.01, fraction=0.05, aspect=14)
        bar.ax.tick_params(length=0, labelsize=7, labelcolor=INK)
        bar.outline.set_visible(False)
        title = name.replace("_", " ")
        axes.set_title(f"|{title}|" if is_complex else title, fontsize=9, loc="left", color=INK)
        axes.set_ylabel("unit", color=INK)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.tick_params(length=0, labelsize=7, labelcolor=INK)
        axes.spines[:].set_visible(False)
    if words is None:
        grid[-1].set_xlabel("step", color=INK)
        grid[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    else:
        labels = [_VISIBLE.get(word, word) for word in words]
        rotation = 90 if max(map(len, labels)) > 1 else 0
        grid[-1].set_xticks(range(steps), labels, rotation=rotation)
        as_text(grid[-1].get_xticklabels())
    save_figure(figure, path)


def _colours(name: str, values: np.ndarray, is_modulus: bool) -> dict[str, Any]:
    """The colours of a heat map, and the values at their ends."""
    if name.endswith("gate") and not is_modulus:
        return {"cmap": "Blues", "vmin": 0, "vmax": 1}
    extent = np.abs(values[np.isfinite(values)]).max(initial=0) or 1
    if is_modulus:
        return {"cmap": "Blues", "vmin": 0, "vmax": extent}
    # The same colour for the same distance from zero.
    return {"cmap": "RdBu_r", "vmin": -extent, "vmax": extent}


def as_text(labels: Iterable[Text]) -> None:
    """Keep names as they are: a dollar sign in them begins no formula."""
    for label in labels:
        label.set_parse_math(False)


def _draw_curve(
    axes: Axes, records: Sequence[Mapping[str, Any]], split: str, quantity: str
) -> bool:
    """Draw one curve if there is anything to draw."""
    name = f"{split}/{quantity}"
    points = [(record["step"], record[name]) for record in records if name in record]
    steps, values = np.array(points, float).reshape(-1, 2).T
    if not np.isfinite(values).any():
        return False
    line: dict[str, Any] = {"color": COLOURS[split], "label": split, "linewidth": 1.6}
    if len(points) > DENSE:
        axes.plot(steps, values, color=COLOURS[split], linewidth=0.7, alpha=0.35)
        axes.plot(steps, running_mean(values, len(points) // 40), **line)
    else:
        few = len(points) <= 40
        axes.plot(steps, values, marker="o" if few else None, markersize=3.2, **line)
    return True


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """The mean over the finite ones of the last `window` values, at each of them."""
    finite = np.isfinite(values)
    total = np.cumsum(np.where(finite, values, 0.0))
    count = np.cumsum(finite)
    total[window:] -= total[:-window].copy()
    count[window:] -= count[:-window].copy()
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def _radius(values: np.ndarray) -> float:
    return float(np.abs(values).max())


def style(axes: Axes, grid: Literal["x", "y"] = "y") -> None:
    """Draw axes thin, with lines across them.

    Args:
        axes: to change.
        grid: the axis whose ticks have lines.
    """
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.tick_params(color=INK, labelcolor=INK)
    axes.grid(axis=grid, color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)


def save_figure(figure: Figure, path: str | os.PathLike) -> None:
    """Write a figure so that a reader, or a crash, meets the old picture or the new.

    The same figure gives the same bytes.

    Args:
        figure: what to write.
        path: where to; its suffix is the format, PNG if it has none.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    kind = path.suffix.removeprefix(".") or "png"
    # Where names and the time of writing would differ.
    settings: dict[str, Any] = {"metadata": {"Date": None}} if kind == "svg" else {}
    with rc_context({"svg.hashsalt": "lru"}):
        figure.savefig(
            temporary, format=kind, dpi=150, bbox_inches="tight", pad_inches=0.08, **settings
        )
    os.replace(temporary, path)
