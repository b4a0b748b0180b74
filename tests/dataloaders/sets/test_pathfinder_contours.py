import dataclasses

import numpy as np
import pytest

from lru.dataloaders.sets.pathfinder_contours import draw
from lru.dataloaders.sets.pathfinder_drawing import STYLES, Drawing, render

SIDES = list(STYLES)


def drawn(side: int, n: int = 60, seed: int = 0, length: int = 14) -> Drawing:
    style = STYLES[side]
    distractors = style.distracting // (length // 3)
    return draw(np.random.default_rng(seed), n, style, length=length, distractors=distractors)


def ends_of(drawing: Drawing, row: int, dash: float) -> np.ndarray:
    """Start and end of the dashes of one picture, `[dashes, 2, 2]`."""
    here = drawing.present[row]
    headings = drawing.headings[row, here]
    half = dash / 2 * np.stack([np.cos(headings), np.sin(headings)], axis=-1)
    centres = drawing.centres[row, here]
    return np.stack([centres - half, centres + half], axis=1)


def traced(ends: np.ndarray, gap: float) -> np.ndarray:
    """Which dash belongs to which contour, told from nothing but gaps that are not too wide."""
    apart = np.linalg.norm(ends[:, None, :, None] - ends[None, :, None, :], axis=-1).min((2, 3))
    contour = np.arange(len(ends))
    while True:
        joined = np.where(apart <= gap, contour, len(ends)).min(axis=1)
        if (joined == contour).all():
            return contour
        contour = joined


def distance(first: np.ndarray, second: np.ndarray) -> float:
    """Of two lines, on a fine grid of their points."""
    share = np.linspace(0, 1, 41)[:, None]
    lines = [line[0] + share * (line[1] - line[0]) for line in (first, second)]
    return np.linalg.norm(lines[0][:, None] - lines[1], axis=-1).min()


@pytest.mark.parametrize("length", [6, 14])
@pytest.mark.parametrize("side", SIDES)
def test_tracing_the_dashes_from_a_marker_tells_the_label(side, length):
    drawing, style = drawn(side, length=length), STYLES[side]
    assert len(drawing.labels) >= 10
    assert 0 < drawing.labels.mean() < 1
    for row, (label, markers) in enumerate(zip(drawing.labels, drawing.markers, strict=True)):
        ends = ends_of(drawing, row, style.dash)
        contour = traced(ends, 2 * drawing.margins[row] + 1e-6)
        at = [np.argmin(np.linalg.norm(ends - marker, axis=-1).min(axis=1)) for marker in markers]
        assert (contour[at[0]] == contour[at[1]]) == label
        sizes = np.bincount(contour)
        assert sizes[contour[at]].tolist() == [length, length]
        assert set(sizes[sizes > 0]) <= {length, length // 3}
        own = drawing.contours[drawing.present[row]]
        assert len(set(zip(own, contour, strict=True))) == len(set(own)) == len(set(contour))


@pytest.mark.parametrize("side", SIDES)
def test_lines_keep_their_distance_and_stay_inside(side):
    drawing, style = drawn(side, 12), STYLES[side]
    for row in range(3):
        ends = ends_of(drawing, row, style.dash)
        assert ends.min() >= style.border
        assert ends.max() <= style.side - style.border
        contour = traced(ends, 2 * drawing.margins[row] + 1e-6)
        for i in range(len(ends)):
            for j in range(i):
                if contour[i] != contour[j]:
                    least = 2 * drawing.margins[row] + style.thickness
                    assert distance(ends[i], ends[j]) >= least - 1e-3


def test_the_classes_have_the_same_ink_and_markers_never_overlap():
    drawing, style = drawn(32, 400), STYLES[32]
    apart = np.linalg.norm(drawing.markers[:, 0] - drawing.markers[:, 1], axis=1)
    assert apart.min() >= 2 * style.marker + 1
    assert drawing.present[:, : 2 * 14].all()
    ink = render(drawing, style).sum((1, 2)) / 255
    by_label = [ink[drawing.labels == label] for label in (0, 1)]
    spread = np.sqrt(sum(part.var() / len(part) for part in by_label))
    assert abs(by_label[0].mean() - by_label[1].mean()) < 4 * spread
    assert abs(drawing.labels.mean() - 0.5) < 4 * 0.5 / np.sqrt(len(drawing.labels))


def test_higher_continuity_is_straighter():
    def bend(continuity: float) -> float:
        style = dataclasses.replace(STYLES[256], continuity=continuity)
        drawing = draw(np.random.default_rng(0), 20, style, length=9, distractors=0)
        turns = np.diff(drawing.headings[:, 0:18:2], axis=1)
        return np.abs(turns).max()

    assert bend(1.0) > bend(2.7)
    assert bend(2.7) <= np.pi / 2 / 2.7


def test_the_seed_decides():
    first, again, other = (drawn(32, 40, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(render(first, STYLES[32]), render(again, STYLES[32]))
    assert first.centres.shape != other.centres.shape or (first.centres != other.centres).any()


def test_ink_is_where_the_dashes_are():
    style = dataclasses.replace(STYLES[64], contrast=1.0)
    drawing = Drawing(
        centres=np.array([[[20.5, 30.5], [40.0, 40.0]]]),
        headings=np.array([[np.pi / 2, 0.0]]),
        present=np.array([[True, False]]),
        contours=np.array([0, 1]),
        margins=np.array([1]),
        markers=np.array([[[10.0, 10.0], [63.0, 1.0]]]),
        labels=np.array([1]),
    )
    (image,) = render(drawing, style)
    assert (image[20, 28:33] == 255).all()
    assert image[19:22, 20:40].sum() == image[20, 27:34].sum()
    assert (image[9:11, 9:11] == 255).all()
    assert image[62, 0] == 255
    assert image[38:43, 38:43].sum() == 0
    area = np.pi * style.marker**2
    assert image[5:15, 5:15].sum() / 255 == pytest.approx(area, rel=0.02)
