"""Drawings of the quantum recurrent network: the circuit of one cell, and that of one neuron.

A circuit is data, stages of columns of gates; one function draws any.
"""

import itertools
import math
import os
import re
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Arc, Circle, Rectangle

from lru.analysis.plots import INK, save_figure
from lru.scan.quantum import n_subsets

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

_INPUT, _WORK, _OUTPUT, _OTHER = "#e3edf8", "#e8f3e6", "#fbeedd", "#f1f1f1"
_LEVELS = (_INPUT, _WORK, _OUTPUT)

_FEW = 10
"""Of more subsets of a size, only the first and the last are drawn."""

_BOTH_ENDS = 3


class Gate(NamedTuple):
    """A box on one lane, and dots on others."""

    kind: str
    target: int
    """The lane that is changed."""
    label: str
    """Text of the box; of a meter, none."""
    controls: tuple[int, ...] = ()
    """The lanes that are read."""


class Stage(NamedTuple):
    """Columns of gates under one title; the gates of a column share no lane."""

    name: str
    title: str
    tint: str
    columns: list[list[Gate]]


class Part(NamedTuple):
    """Stages in their order, on rows of their own."""

    title: str
    lanes: list[str]
    """Names, from top to bottom."""
    zeros: range
    """Lanes that begin and end as 0."""
    state: range
    """Lanes that hold the state of the cell, if that is to be said."""
    stages: list[Stage]


class Circuit(NamedTuple):
    """A drawing, before anything has its place."""

    title: str
    subtitle: str
    parts: list[Part]
    legend: list[tuple[Gate | None, str]]
    """Sentences, each beside its gate, or beside a dot."""


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


def cell_circuit(workspace: int, input_width: int, stages: int, order: int, degree: int) -> Circuit:
    """One step of the network; the arguments are those of `plot_circuit`."""
    words = range(input_width)
    state = range(input_width, input_width + workspace)
    lanes = [*words, *state]
    names = [f"in/out {k}" for k in words] + [f"workspace {k}" for k in range(workspace)]

    def each(kind: str, targets: range, label: str) -> list[list[Gate]]:
        return [[Gate(kind, lane, label) for lane in targets]]

    def neurons(targets: range) -> list[list[Gate]]:
        return [
            [Gate("neuron", target, f"$R^{{{order}}}$", tuple(x for x in lanes if x != target))]
            for target in targets
        ]

    steps = [
        Stage("load", "load $x_t$", _OTHER, each("x", words, "$X$")),
        Stage("input", "input stage", _INPUT, neurons(state)),
        *(
            Stage(
                f"work{number}",
                f"work stage {number}",
                _WORK,
                each("ry", state, "$R_y$") + neurons(state),
            )
            for number in range(1, stages + 1)
        ),
        Stage("unload", "unload $x_t$", _OTHER, each("x", words, "$X$")),
        Stage("output", "output stage", _OUTPUT, neurons(words)),
        Stage("measure", "measure $y_t$", _OTHER, each("measure", words, "")),
        Stage("reset", "reset", _OTHER, each("reset", words, r"$|0\rangle$")),
    ]
    weights = n_subsets(len(lanes) - 1, degree)
    total = workspace * (1 + stages) + input_width
    legend: list[tuple[Gate | None, str]] = [
        (steps[1].columns[0][0], f"neuron of order {order}: rotates its lane by the others"),
        (None, "lane that the neuron reads"),
        (steps[0].columns[0][0], "flips the lane if its bit of the input word $x_t$ is 1"),
        (steps[-2].columns[0][0], "measures a bit of the output word $y_t$"),
        (steps[-1].columns[0][0], "sets the lane back to 0"),
    ]
    if stages:
        legend.insert(2, (steps[2].columns[0][0], "rotates the lane by an angle of its own"))
    return Circuit(
        title=(
            f"Quantum recurrent cell: workspace {workspace}, input width {input_width}, "
            f"stages {stages}, order {order}, degree {degree}"
        ),
        subtitle=(
            f"{total * (weights + 1) + stages * workspace} parameters; "
            f"{total} neurons, each with {_count(weights, 'weight')} and a bias"
        ),
        parts=[Part("", names, words, state, steps)],
        legend=legend,
    )


def neuron_circuit(workspace: int, input_width: int, order: int, degree: int) -> Circuit:
    """The first neuron of the input stage; the arguments are those of `plot_circuit`.

    Its sources come first, in the order in which weights are numbered, then its ancillas, then the
    lane that it rotates.
    """
    names = [f"workspace {k}" for k in range(1, workspace)]
    names += [f"in/out {k}" for k in range(input_width)]
    sources = range(len(names))
    names += [f"ancilla {k}" for k in range(order)] + ["workspace 0"]
    first = len(sources)
    ancillas = range(first, first + order)

    def recursion(level: int, dagger: bool) -> Iterator[tuple[int, Gate]]:
        """The gates of N_level, each with its level; N_0 is R."""
        mark = r"^\dagger" if dagger else ""
        if level == 0:
            yield 1, Gate("rotations", first, f"$R{mark}$", tuple(sources))
            return
        ancilla = ancillas[level - 1]
        yield from recursion(level - 1, dagger=False)
        yield level, Gate("iy", ancilla + 1, f"$iY{mark}$", (ancilla,))
        yield from recursion(level - 1, dagger=True)
        yield level, Gate("postselect", ancilla, r"$\langle 0|$")

    steps = []
    for level, found in itertools.groupby(recursion(order, dagger=False), lambda each: each[0]):
        columns = [[gate] for _, gate in found]
        tint = _LEVELS[(level - 1) % len(_LEVELS)]
        steps.append(Stage(f"step{len(steps)}", f"$N_{{{level}}}$", tint, columns))
    rotations = [Stage("bias", "bias", _OTHER, [[Gate("ry", first, r"$\theta$")]])]
    for size in range(1, min(degree, len(sources)) + 1):
        count = math.comb(len(sources), size)
        columns = [[Gate("ry", first, r"$\varphi$", subset)] for subset in _shown(sources, size)]
        if len(columns) < count:
            columns.insert(len(columns) // 2, [])
        title = f"degree {size}: {_count(count, 'weight')}"
        rotations.append(Stage(f"degree{size}", title, _OTHER, columns))
    return Circuit(
        title=(
            f"Neuron of a quantum recurrent cell: workspace {workspace}, "
            f"input width {input_width}, order {order}, degree {degree}"
        ),
        subtitle=(
            f"{_count(n_subsets(len(sources), degree), 'weight')} and a bias; "
            "the first neuron of the input stage"
        ),
        parts=[
            Part(f"$N_{{{order}}}$ =", names, ancillas, range(0), steps),
            Part("$R$ =", names[: first + 1], range(0), range(0), rotations),
        ],
        legend=[
            (Gate("rotations", 0, "$R$"), r"the rotations below; $R^\dagger$ takes them back"),
            (Gate("ry", 0, r"$\theta$"), "rotation by the constant bias and θ"),
            (
                Gate("iy", 0, "$iY$"),
                r"takes $|0\rangle$ to $|1\rangle$, $|1\rangle$ to -$|0\rangle$ if the dot is 1",
            ),
            (Gate("ry", 0, r"$\varphi$"), "rotation by a weight if all dots are 1"),
            (Gate("postselect", 0, r"$\langle 0|$"), "keeps what is 0 there, and normalises"),
        ],
    )


def _shown(lanes: range, size: int) -> list[tuple[int, ...]]:
    """Subsets of a size in their order; of too many, the first and the last."""
    subsets = itertools.combinations(lanes, size)
    if math.comb(len(lanes), size) <= _FEW:
        return list(subsets)
    # What the first subsets of the other size leave out is the last of this one.
    others = itertools.combinations(lanes, len(lanes) - size)
    last = [
        tuple(x for x in lanes if x not in other) for other in itertools.islice(others, _BOTH_ENDS)
    ]
    return [*itertools.islice(subsets, _BOTH_ENDS), *reversed(last)]


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'s' * (number != 1)}"


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
