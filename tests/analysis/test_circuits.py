"""Drawings of circuits: what the pictures hold, and that their gates do what a neuron does."""

import itertools
import re
from collections import Counter
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from lru.analysis import circuit_drawing
from lru.analysis.circuit_drawing import MOST_LANES, MOST_LEVELS, MOST_NEURONS, plot_circuit
from lru.analysis.circuits import neuron_circuit
from lru.commands import main


def drawn(path):
    """Gates of a picture by stage and kind, and the lanes that they read."""
    names = [each.get("id", "") for each in ElementTree.parse(path).iter()]
    gates, dots = Counter(), Counter()
    for name in names:
        found = re.fullmatch(r"([a-z]+\d*)-\d+-([a-z]+)-\d+(-control-\d+)?", name)
        if found:
            (dots if found[3] else gates)[found[1], found[2]] += 1
    return gates, dots


@pytest.mark.parametrize(("workspace", "input_width", "stages"), [(1, 1, 0), (3, 2, 1), (8, 3, 3)])
def test_a_cell_has_its_gates_in_their_stages(tmp_path, workspace, input_width, stages):
    path = tmp_path / "cell.svg"
    plot_circuit(path, workspace, input_width, stages, 2, 2)
    gates, dots = drawn(path)
    neurons = dict.fromkeys(["input", *(f"work{s}" for s in range(1, stages + 1))], workspace)
    neurons["output"] = input_width
    others = workspace + input_width - 1
    assert dots == {(stage, "neuron"): n * others for stage, n in neurons.items()}
    words = [("load", "x"), ("unload", "x"), ("measure", "measure"), ("reset", "reset")]
    assert gates == {
        **{(stage, "neuron"): n for stage, n in neurons.items()},
        **{(f"work{s}", "ry"): workspace for s in range(1, stages + 1)},
        **dict.fromkeys(words, input_width),
    }


@pytest.mark.parametrize(
    ("sizes", "detail"),
    [
        ((1, 1, 0, 1, 1), "cell"),
        ((3, 2, 1, 2, 2), "cell"),
        ((8, 3, 3, 12, 3), "cell"),
        ((1, 1, 0, 1, 1), "neuron"),
        ((8, 3, 0, 4, 4), "neuron"),
    ],
)
def test_no_text_lies_on_another_or_outside(monkeypatch, sizes, detail):
    saved = []
    monkeypatch.setattr(circuit_drawing, "save_figure", lambda figure, path: saved.append(figure))
    plot_circuit("unused.svg", *sizes, detail)
    (figure,) = saved
    renderer = FigureCanvasAgg(figure).get_renderer()
    (axes,) = figure.axes
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in axes.texts]
    boxes = [(text, box) for text, box in boxes if text]
    assert len(boxes) > 10
    for text, box in boxes:
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= figure.bbox.width, text
        assert box.y1 <= figure.bbox.height, text
    pairs = itertools.combinations(boxes, 2)
    assert [(a, b) for (a, one), (b, two) in pairs if one.overlaps(two)] == []


def test_a_drawing_made_again_is_the_same_file(tmp_path):
    for name in ("a.svg", "b.svg"):
        plot_circuit(tmp_path / name, 1, 1, 0, 1, 1)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def rotation(angle):
    half = angle / 2
    return np.array([[np.cos(half), -np.sin(half)], [np.sin(half), np.cos(half)]])


def applied(state, matrix, gate):
    """A matrix on the target of a gate where all its controls are 1."""
    where = tuple(1 if lane in gate.controls else slice(None) for lane in range(state.ndim))
    axis = gate.target - sum(lane < gate.target for lane in gate.controls)
    out = state.copy()
    out[where] = np.moveaxis(np.tensordot(matrix, state[where], (1, axis)), 0, axis)
    return out


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_gates_of_a_neuron_do_what_it_does(order):
    rng = np.random.default_rng(order)
    main_part, rotations = neuron_circuit(2, 2, order, 2).parts
    lanes, sources = len(main_part.lanes), 3
    inner = [gate for stage in rotations.stages for column in stage.columns for gate in column]
    angles = rng.normal(0, 1, len(inner))
    subsets = [gate.controls for gate in inner]
    assert subsets == [(), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2)]
    given = rng.standard_normal((2,) * (sources + 1))
    state = np.zeros((2,) * lanes)
    state[(..., *(0,) * order, slice(None))] = given
    for stage in main_part.stages:
        for (gate,) in stage.columns:
            dagger = "dagger" in gate.label
            if gate.kind == "rotations":
                signed = list(zip(inner, angles, strict=True))
                for each, angle in reversed(signed) if dagger else signed:
                    state = applied(state, rotation(-angle if dagger else angle), each)
            elif gate.kind == "iy":
                state = applied(state, rotation(-np.pi if dagger else np.pi), gate)
            else:
                state = applied(state, np.diag([1.0, 0.0]), gate)
    result = state[(..., *(0,) * order, slice(None))]
    for bits in itertools.product((0, 1), repeat=sources):
        half = 0.5 * sum(
            angle for s, angle in zip(subsets, angles, strict=True) if all(bits[k] for k in s)
        )
        c, s = np.cos(half) ** 2**order, np.sin(half) ** 2**order
        np.testing.assert_allclose(
            result[bits], np.array([[c, -s], [s, c]]) @ given[bits], atol=1e-12
        )


def subsets_drawn(stage):
    return [column[0].controls if column else None for column in stage.columns]


def test_of_many_weights_the_first_and_the_last_are_drawn():
    for size, stage in enumerate(neuron_circuit(4, 2, 1, 9).parts[1].stages):
        assert subsets_drawn(stage) == list(itertools.combinations(range(5), size))
    stages = neuron_circuit(30, 2, 1, 16).parts[1].stages
    subsets = list(itertools.combinations(range(31), 3))
    assert subsets_drawn(stages[3]) == [*subsets[:3], None, *subsets[-3:]]
    first, *_, last = subsets_drawn(stages[16])
    assert (first, last) == (tuple(range(16)), tuple(range(15, 31)))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--workspace 0", "workspace must be at least 1, got 0"),
        ("--stages -1", "stages must be at least 0, got -1"),
        ("--degree 0", "degree must be at least 1, got 0"),
        ("--workspace 50", f"at most {MOST_LANES} lanes and 128 neurons .* got 52 and 152 of work"),
        ("--stages 50", f"at most 32 lanes and {MOST_NEURONS} neurons .* got 5 and 155 of workspa"),
        ("--neuron --order 9", f"order must be at most {MOST_LEVELS} to be drawn, got 9"),
    ],
)
def test_what_cannot_be_drawn_is_refused(tmp_path, capsys, flags, message):
    assert main(["draw-circuit", *flags.split(), "--out", str(tmp_path)]) == 2
    assert re.fullmatch(f"lru draw-circuit: .*{message}.*\n", capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_both_pictures(tmp_path, capsys):
    sizes = ["--workspace", "1", "--input_width", "1", "--stages", "1"]
    for out in (tmp_path, tmp_path / "new" / "cell.svg"):
        assert main(["draw-circuit", *sizes, "--out", str(out)]) == 0
    written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")}
    stems = ["cell-w1-i1-s1-o2-d2", "new/cell"]
    assert written == {stem + suffix for stem in stems for suffix in (".svg", ".png")}
    assert (tmp_path / "new" / "cell.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert capsys.readouterr().out.splitlines()[-1] == f"  {tmp_path}/new/cell.png"
