"""Drawings of circuits: each gate, stage and row at its place."""

import itertools
import math
import os
import re
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Arc, Circle, Rectangle

from lru.analysis.circuits import Circuit, Gate, Part, Stage, cell_circuit, neuron_circuit
from lru.analysis.plots import INK, save_figure

Detail = Literal["cell", "neuron"]

MOST_LANES, MOST_NEURONS = 32, 128
"""Lanes and neurons of a cell that can be drawn; more could not be told apart."""

MOST_LEVELS = 6
"""Order of a neuron that can be drawn; each level doubles its gates."""

# Inches.
_PITCH, _LANE = 0.44, 0.36
_BOX, _DOT = 0.32, 0.045
_LABELS, _LINE, _GAP = 1.5, 0.24, 0.05
_ROW, _CHARACTER = 11.0, 0.068

# Points.
_STROKE = 0.8


def plot_circuit(
    path: str | os.PathLike,
    workspace: int,
    input_width: int,
    stages: int,
    order: int,
    degree: int,
    detail: Detail = "cell",
) -> None:
    """Draw the circuit of one cell of a quantum recurrent network, or of one of its neurons.

    Args:
        path: the picture to write; its suffix is the format. Atomic.
        workspace: lanes of the cell's state.
        input_width: in/out lanes, which are the bits of a word.
        stages: work stages.
        order: levels of the recursion in a neuron.
        degree: the most lanes that a weight of a neuron is for.
        detail: the whole cell, or all gates of the first neuron of its input stage.

    Raises:
        ValueError: if a number is too small, or a cell or a neuron too large to be drawn.
    """
    given = {"workspace": workspace, "input_width": input_width, "stages": stages}
    for name, value in (given | {"order": order, "degree": degree}).items():
        least = int(name != "stages")
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    lanes, neurons = workspace + input_width, workspace * (1 + stages) + input_width
    if lanes > MOST_LANES or neurons > MOST_NEURONS:
        raise ValueError(
            f"workspace, stages and input_width must give at most {MOST_LANES} lanes and "
            f"{MOST_NEURONS} neurons to be drawn, got {lanes} and {neurons} of workspace "
            f"{workspace}, stages {stages} and input_width {input_width}"
        )
    if detail == "neuron" and order > MOST_LEVELS:
        raise ValueError(f"order must be at most {MOST_LEVELS} to be drawn, got {order}")
    if detail == "cell":
        circuit = cell_circuit(workspace, input_width, stages, order, degree)
    else:
        circuit = neuron_circuit(workspace, input_width, order, degree)
    save_figure(_drawn(circuit), path)


def _rows(stages: list[Stage]) -> list[list[Stage]]:
    """Stages on as few rows as they need, as equal in width as that allows."""

    def broken(limit: float) -> list[list[Stage]]:
        rows: list[list[Stage]] = [[]]
        for stage in stages:
            if rows[-1] and _width([*rows[-1], stage]) > limit:
                rows.append([])
            rows[-1].append(stage)
        return rows

    widest = max(_ROW, *(_width([stage]) for stage in stages))
    limits = {_width(stages[a:b]) for a, b in itertools.combinations(range(len(stages) + 1), 2)}
    fitting = [limit for limit in limits if limit <= widest]
    fewest = len(broken(widest))
    return broken(min(limit for limit in fitting if len(broken(limit)) == fewest))


def _width(row: list[Stage]) -> float:
    return sum(_stage_width(stage) for stage in row) + _GAP * (len(row) - 1)


def _stage_width(stage: Stage) -> float:
    return max(len(stage.columns) * _PITCH, _text_width(stage.title))


def _text_width(text: str) -> float:
    """At most that of a text at the size of titles of stages."""
    shown = re.sub(r"[$_^{}]", "", re.sub(r"\\[a-z]+", "x", text))
    return _CHARACTER * len(shown) + 0.1


def _drawn(circuit: Circuit) -> Figure:
    rows = [(part, row) for part in circuit.parts for row in _rows(part.stages)]
    heights = [len(part.lanes) * _LANE + 2 * _LINE for part, _ in rows]
    tops = [3.4 * _LINE + before for before in itertools.accumulate(heights, initial=0)]
    width = max(
        _LABELS + max(_width(row) for _, row in rows) + 0.5,
        *(1.3 * _text_width(text) for text in (circuit.title, circuit.subtitle)),
    )
    entry = max(0.5 + _text_width(text) for _, text in circuit.legend)
    columns = max(1, int(width / entry))
    height = tops[-1] + math.ceil(len(circuit.legend) / columns) * _LANE
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    _write(axes, 0.1, 0.8 * _LINE, circuit.title, "left", fontsize=10, weight="bold")
    _write(axes, 0.1, 1.8 * _LINE, circuit.subtitle, "left", fontsize=9)
    for (part, row), top in zip(rows, tops, strict=False):
        _draw_row(axes, part, row, top)
    for number, (gate, text) in enumerate(circuit.legend):
        x = 0.26 + number % columns * entry
        y = tops[-1] + number // columns * _LANE
        if gate is None:
            axes.add_patch(Circle((x, y), _DOT, color=INK))
        else:
            _draw_box(axes, gate, x, y, f"legend-{number}", 0.7)
        _write(axes, x + 0.26, y, text, "left")
    return figure


def _draw_row(axes: Axes, part: Part, row: list[Stage], top: float) -> None:
    """Draw stages side by side, the lanes through them, and what these hold at their ends."""
    lanes = [top + (k + 0.5) * _LANE for k in range(len(part.lanes))]
    ends = [
        (_LABELS - 0.1, -1, "right", "$h_{t-1}$", row[0] is part.stages[0]),
        (_LABELS + _width(row) + 0.1, 1, "left", "$h_t$", row[-1] is part.stages[-1]),
    ]
    for name, y in zip(part.lanes, lanes, strict=True):
        _line(axes, [ends[0][0], ends[1][0]], [y, y])
        _write(axes, 0.1, y, name, "left")
    _write(axes, 0.1, top - 0.1, part.title, "left")
    for x, outwards, side, state, whole in ends:
        if not whole:
            for y in lanes:
                _line(axes, [x, x + 0.16 * outwards], [y, y], linestyle=":")
            continue
        x += 0.04 * outwards
        for k in part.zeros:
            _write(axes, x, lanes[k], r"$|0\rangle$", side)
        if part.state:
            reach = [lanes[part.state[0]] - 0.1, lanes[part.state[-1]] + 0.1]
            _line(axes, [x, x], reach)
            _write(axes, x + 0.05 * outwards, sum(reach) / 2, state, side)
    left = _LABELS
    for stage in row:
        width = _stage_width(stage)
        band = (width, len(lanes) * _LANE)
        axes.add_patch(Rectangle((left, top), *band, facecolor=stage.tint, zorder=0))
        middle = left + width / 2
        _write(axes, middle, top - 0.1, stage.title)
        start = middle - (len(stage.columns) - 1) / 2 * _PITCH
        for number, column in enumerate(stage.columns):
            x = start + number * _PITCH
            for gate in column:
                _draw_gate(axes, gate, x, lanes, f"{stage.name}-{number}-{gate.kind}-{gate.target}")
            if not column:
                _write(axes, x, top + _LANE, "…")
        left += width + _GAP


def _draw_gate(axes: Axes, gate: Gate, x: float, lanes: list[float], name: str) -> None:
    reached = [lanes[lane] for lane in (gate.target, *gate.controls)]
    _line(axes, [x, x], [min(reached), max(reached)])
    for lane in gate.controls:
        dot = Circle((x, lanes[lane]), _DOT, color=INK, zorder=2, gid=f"{name}-control-{lane}")
        axes.add_patch(dot)
    _draw_box(axes, gate, x, lanes[gate.target], name)


def _draw_box(axes: Axes, gate: Gate, x: float, y: float, name: str, size: float = 1) -> None:
    width, height = size * _BOX, 0.8 * size * _LANE
    box = Rectangle((x - width / 2, y - height / 2), width, height, gid=name, zorder=3)
    box.set(facecolor="white", edgecolor=INK, linewidth=_STROKE)
    axes.add_patch(box)
    if gate.label:
        _write(axes, x, y, gate.label)
        return
    low, wide = y + 0.06 * size, 0.2 * size
    arc = Arc((x, low), wide, wide, theta1=180, theta2=360, edgecolor=INK, linewidth=_STROKE)
    arc.set_zorder(4)
    axes.add_patch(arc)
    _line(axes, [x, x + 0.08 * size], [low, y - 0.07 * size], zorder=4)


def _line(axes: Axes, x: list[float], y: list[float], **style: Any) -> None:
    axes.plot(x, y, **{"color": INK, "linewidth": _STROKE, "zorder": 1} | style)


def _write(axes: Axes, x: float, y: float, text: str, side: str = "center", **style: Any) -> None:
    axes.text(x, y, text, **{"fontsize": 8, "color": INK, "ha": side, "va": "center"} | style)
