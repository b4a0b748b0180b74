import math
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from lru.analysis.plots import plot_curves, plot_eigenvalues, plot_observed, running_mean

PNG = b"\x89PNG\r\n\x1a\n"


def records(n):
    """Training metrics at every step, validation at every tenth."""
    out = []
    for step in range(1, n + 1):
        record = {"step": step, "epoch": 0, "lr": 0.1, "train/loss": 1 / step}
        record["train/accuracy"] = 1 - 1 / step
        if step % 10 == 0:
            record |= {"val/loss": 2 / step, "val/accuracy": 0.5, "test/accuracy": 0.4}
        out.append(record)
    return out


def labelled(axes):
    """The lines that the legend names."""
    return {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}


def layers(count, n=8, scale=1.0):
    phase = np.linspace(0, 2 * math.pi, n, endpoint=False)
    return {f"layer {i}": scale * 0.9 * np.exp(1j * phase) for i in range(count)}


def test_curves_hold_what_was_logged(figure):
    loss, accuracy = figure(plot_curves, records(40)).axes
    assert (loss.get_title(), accuracy.get_title()) == ("loss", "accuracy")
    assert list(labelled(loss)) == ["train", "val"]
    assert list(labelled(accuracy)) == ["train", "val", "test"]
    np.testing.assert_array_equal(labelled(loss)["val"].get_xdata(), [10, 20, 30, 40])
    np.testing.assert_allclose(labelled(loss)["val"].get_ydata(), [0.2, 0.1, 2 / 30, 0.05])


def test_a_quantity_that_was_not_logged_says_so(figure):
    _, accuracy = figure(plot_curves, [{"step": 1, "train/loss": 0.5}]).axes
    assert labelled(accuracy) == {}
    assert [text.get_text() for text in accuracy.texts] == ["not logged"]


def test_a_long_curve_is_a_running_mean_over_the_raw_one(figure):
    loss, _ = figure(plot_curves, records(400)).axes
    raw, mean = loss.lines[:2]
    assert raw.get_alpha() < 1
    window = 400 // 40
    assert mean.get_ydata()[-1] == pytest.approx(np.mean(raw.get_ydata()[-window:]))
    assert mean.get_ydata()[0] == raw.get_ydata()[0]


def test_running_mean_steps_over_what_is_not_finite():
    values = np.array([math.nan, 1.0, math.inf, 3.0, math.nan, math.nan])
    np.testing.assert_allclose(running_mean(values, 2), [math.nan, 1.0, 1.0, 3.0, 3.0, math.nan])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_curves_survive_what_is_not_finite(tmp_path, value):
    lines = [*records(200), {"step": 201, "train/loss": value, "val/loss": value}]
    plot_curves(lines, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(PNG)


def test_curves_of_nothing(tmp_path):
    plot_curves([], tmp_path / "plots" / "curves.png")
    assert (tmp_path / "plots" / "curves.png").read_bytes().startswith(PNG)


def test_eigenvalues_before_and_after_on_the_unit_disk(figure):
    axes, second = figure(plot_eigenvalues, layers(2), layers(2, scale=1.05)).axes
    assert axes.get_title() == "layer 0\nmax |λ|  0.900 → 0.945"
    assert second.get_title().startswith("layer 1")
    assert [p.radius for p in axes.patches if isinstance(p, Circle)] == [1]
    assert axes.get_aspect() == 1
    before, after = (points.get_offsets() for points in axes.collections)
    np.testing.assert_allclose(np.abs(before @ [1, 1j]), 0.9)
    np.testing.assert_allclose(np.abs(after @ [1, 1j]), 0.945)


def test_eigenvalues_outside_the_disk_stay_in_view(figure):
    for axes in figure(plot_eigenvalues, layers(2), layers(2, scale=2)).axes:
        assert axes.get_xlim()[1] > 1.8
        assert axes.get_ylim()[0] < -1.8


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (3, 3), (4, 4), (5, 3), (6, 3), (16, 4)])
def test_every_layer_has_its_panel(figure, count, columns):
    drawn = figure(plot_eigenvalues, layers(count), layers(count))
    assert len(drawn.axes) == count
    assert drawn.axes[0].get_subplotspec().get_gridspec().ncols == columns


def test_eigenvalues_that_are_not_finite_still_give_a_picture(tmp_path):
    broken = layers(1)
    broken["layer 0"][0] = math.nan
    plot_eigenvalues(layers(1), broken, tmp_path / "eigenvalues.png")
    assert (tmp_path / "eigenvalues.png").read_bytes().startswith(PNG)


@pytest.mark.parametrize(("initial", "trained"), [(0, 0), (2, 1)])
def test_layers_that_differ_are_refused(initial, trained, tmp_path):
    with pytest.raises(ValueError, match="must name the same layers, at least one"):
        plot_eigenvalues(layers(initial), layers(trained), tmp_path / "eigenvalues.png")


def observed(steps, units, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "state": rng.uniform(-0.3, 0.3, (steps, units)),
        "forget_gate": rng.uniform(0, 1, (steps, units)),
        "modes": rng.normal(size=(steps, units)) + 1j * rng.normal(size=(steps, units)),
    }


def test_what_happens_inside_stands_above_its_words(figure):
    values = {**observed(4, 6), "gate of a head": np.zeros((4, 2))}
    panels = figure(plot_observed, values, ["pay", "$", "a$b$", "N"]).axes[:4]
    drawn = {axes.get_title("left"): axes.images[0] for axes in panels}
    assert list(drawn) == ["state", "forget gate", "|modes|", "gate of a head"]
    for image, expected in zip(drawn.values(), values.values(), strict=True):
        shown = np.abs(expected) if np.iscomplexobj(expected) else expected
        np.testing.assert_array_equal(image.get_array(), shown.T)
    extent = np.abs(values["state"]).max()
    assert drawn["state"].get_clim() == (-extent, extent)
    assert drawn["forget gate"].get_clim() == (0, 1)
    assert drawn["|modes|"].get_clim() == (0, np.abs(values["modes"]).max())
    labels = panels[-1].get_xticklabels()
    assert [label.get_text() for label in labels] == ["pay", "$", "a$b$", "N"]
    assert not any(label.get_parse_math() for label in labels)


def test_characters_without_ink_are_made_visible(figure):
    axes = figure(plot_observed, observed(4, 2), list("a b\n")).axes[2]
    labels = axes.get_xticklabels()
    assert [label.get_text() for label in labels] == ["a", "␣", "b", "↵"]
    assert {label.get_rotation() for label in labels} == {0}


def test_steps_without_words_have_numbers(figure):
    assert figure(plot_observed, observed(30, 2), None).axes[2].get_xlabel() == "step"


def test_a_state_of_one_word_and_unit_that_is_no_number(tmp_path):
    plot_observed({"state": [[math.nan]]}, ["$x$"], tmp_path / "inside.png")
    assert (tmp_path / "inside.png").read_bytes().startswith(PNG)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"state": np.zeros((3, 2))}, 4),
        ({"modes": np.zeros((4, 0))}, 4),
        ({"state": np.zeros(4)}, 4),
        ({}, 3),
        (dict.fromkeys(observed(4, 2), np.zeros((0, 2))), 0),
    ],
)
def test_other_shapes_inside_are_refused(tmp_path, change, words):
    said = r"must have values \[T, N\] of the same T, .* got \(.* for \d words"
    with pytest.raises(ValueError, match=said):
        plot_observed(observed(4, 2) | change, ["a"] * words, tmp_path / "inside.png")


def test_nothing_inside_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"got none$"):
        plot_observed({}, None, tmp_path / "inside.png")


def test_a_failed_write_leaves_the_old_picture(tmp_path, monkeypatch):
    path = tmp_path / "curves.png"
    path.write_bytes(b"old")

    def fail(self, file, **_):
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        plot_curves(records(3), path)
    assert path.read_bytes() == b"old"


def test_no_global_state_of_pyplot():
    code = "import sys, lru.analysis.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
