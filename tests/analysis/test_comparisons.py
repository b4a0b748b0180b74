"""Pictures of several trainings show means of what was logged, and how they differ."""

import math

import numpy as np
import pytest

from lru.analysis.comparisons import curve_of, plot_bars, plot_by_option, plot_learning_curves

PNG = b"\x89PNG\r\n\x1a\n"


def records(*values, name="val/accuracy"):
    return [{"step": 10 * k, name: value} for k, value in enumerate(values, 1)]


def test_a_curve_has_the_mean_of_the_trainings_that_have_a_step():
    curve = curve_of([records(0.2, 0.5, 0.9), records(0.4, math.nan), []], "val/accuracy")
    np.testing.assert_array_equal(curve.steps, [10, 20, 30])
    np.testing.assert_allclose(curve.mean, [0.3, 0.5, 0.9])
    np.testing.assert_allclose((curve.low, curve.high), [[0.2, 0.5, 0.9], [0.4, 0.5, 0.9]])


def test_learning_curves_have_a_panel_a_quantity_and_a_band_a_group(figure):
    groups = {
        "lru": [records(0.2, 0.5), records(0.4, 0.7)],
        "gru $": [[*records(0.1), *records(9.0, 0.05, name="train/loss")]],
    }
    drawn = figure(plot_learning_curves, groups, ["train/loss", "val/accuracy"])
    loss, accuracy = drawn.axes
    assert (loss.get_ylabel(), accuracy.get_ylabel()) == ("train/loss", "val/accuracy")
    assert (loss.get_yscale(), accuracy.get_yscale()) == ("log", "linear")
    lines = {line.get_label(): line for line in accuracy.lines}
    np.testing.assert_allclose(lines["lru"].get_ydata(), [0.3, 0.6])
    assert lines["lru"].get_color() != lines["gru $"].get_color()
    # A single training has no band.
    (band,) = accuracy.collections
    low, high = band.get_datalim(accuracy.transData).intervaly
    np.testing.assert_allclose([low, high], [0.2, 0.7])
    (legend,) = drawn.legends
    assert [text.get_text() for text in legend.get_texts()] == ["lru", "gru $"]
    assert not any(text.get_parse_math() for text in legend.get_texts())


def test_many_points_have_a_running_mean(figure):
    noisy = records(*np.resize([0.0, 1.0], 400))
    (axes,) = figure(plot_learning_curves, {"lru": [noisy]}, ["val/accuracy"]).axes
    faint, line = axes.lines
    assert faint.get_alpha() < 1
    np.testing.assert_allclose(line.get_ydata()[50:], 0.5, atol=0.06)


def test_results_by_an_option_have_a_line_each_and_bars_of_deviation(figure):
    lines = {"lru": {8: [0.5, 0.7], 64: [0.9]}, "gru": {8: [0.2]}, "none": {}}
    (axes,) = figure(plot_by_option, lines, "d_hidden", "val/accuracy").axes
    lru, gru = axes.containers
    np.testing.assert_allclose(lru.lines[0].get_xydata(), [[8, 0.6], [64, 0.9]])
    (bars,) = lru.lines[2]
    deviation = np.std([0.5, 0.7], ddof=1)
    np.testing.assert_allclose(
        [segment[:, 1] for segment in bars.get_segments()],
        [[0.6 - deviation, 0.6 + deviation], [0.9, 0.9]],
    )
    assert (lru.get_label(), gru.get_label()) == ("lru", "gru")
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["8", "64"]


def test_bars_have_a_dot_for_each_training(figure):
    values = {"lru": [0.5, 0.7], "none": [], "gru": [0.2]}
    (axes,) = figure(plot_bars, values, "val/accuracy").axes
    np.testing.assert_allclose([bar.get_width() for bar in axes.patches], [0.6, 0.2])
    dots = [line.get_xdata() for line in axes.lines if line.get_marker() == "o"]
    assert [list(each) for each in dots] == [[0.5, 0.7], [0.2]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["lru", "gru"]


@pytest.mark.parametrize("count", [1, 30])
def test_any_number_of_groups_and_values_that_are_none_are_drawn(count, tmp_path):
    groups = {f"a group with a long name, {k}": [math.nan, math.nan] for k in range(count)}
    plot_bars(groups, "val/loss", tmp_path / "bars.png")
    plot_by_option({k: {1: v} for k, v in groups.items()}, "lr", "loss", tmp_path / "lines.png")
    curves = {name: [records(*values)] for name, values in groups.items()}
    plot_learning_curves(curves, ["val/accuracy", "none"], tmp_path / "curves.png")
    pictures = sorted(tmp_path.iterdir())
    assert [path.name for path in pictures] == ["bars.png", "curves.png", "lines.png"]
    assert all(path.read_bytes().startswith(PNG) for path in pictures)
