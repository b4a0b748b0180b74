"""Circuits of the quantum recurrent network, that of one cell and that of one neuron, as data.

A circuit is stages of columns of gates; `circuit_drawing.py` draws any.
"""

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

from lru.scan.quantum import n_subsets

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
