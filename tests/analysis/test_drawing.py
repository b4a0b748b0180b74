"""Drawings of findings: the right numbers at the right places; that all kinds are drawn, and shown,
is in tests/training/test_boards.py.
"""

import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from lru.analysis import drawing
from lru.analysis.drawing import drawn
from lru.tasks import Animation, Curves, HeatMap, Picture


def test_a_finding_is_drawn_once():
    finding = HeatMap(np.eye(2))
    assert drawn(finding) is drawn(finding)


def test_limits_are_those_of_their_axes():
    shown = Curves({"a": ([1, 2], [1, 100])}, "x", "y", (0.5, 3.0), (0.1, 1000.0), log_scale=True)
    figure = Figure()
    drawing._draw_curves(figure, shown)
    (axes,) = figure.axes
    assert (axes.get_xlim(), axes.get_ylim()) == ((0.5, 3), (0.1, 1000))
    assert (axes.get_xlabel(), axes.get_yscale()) == ("x", "log")


def test_cells_have_their_values_and_names():
    figure = Figure()
    shown = HeatMap(np.array([[0.0, 0.126, np.nan]]), x_names=["$a", "b", "c"])
    drawing._draw_heat_map(figure, shown)
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == ["0.000", "0.126"]
    assert [text.get_position() for text in axes.texts] == [(0, 0), (1, 0)]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["$a", "b", "c"]


def test_frames_have_the_same_colours_for_the_same_values_and_one_size():
    content = drawn(Animation([HeatMap(np.full((1, 1), value)) for value in (0.0, 1.0)])).content
    with Image.open(io.BytesIO(content)) as picture:
        frames = []
        for k in range(2):
            picture.seek(k)
            frames.append(np.asarray(picture.convert("RGB"), int))
    # White for the least of all values, dark blue for the greatest.
    first, second = (np.median(frame.sum(axis=-1)[80:120, 100:160]) for frame in frames)
    assert first > 700 > 300 > second
    sizes = [Picture(np.zeros((1, width, 3), np.uint8)) for width in (1, 2)]
    with pytest.raises(ValueError, match=r"one size, got \[\(1, 1\), \(2, 1\)\]"):
        drawn(Animation(sizes))
