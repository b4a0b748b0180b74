"""Contours of the Pathfinder task: are two markers the ends of one dashed contour?

Two contours of equally many dashes start near each other and wander off; each next dash turns from
the last by an angle of density proportional to cos²(continuity · angle). One marker is at the start
of a contour, the other at the end of the same (label 1) or of the other (label 0). Short contours
distract. No dash comes nearer to one of another contour, or to one of its own but its neighbours,
than the gap between neighbours: so gaps that are not wider make up the contours, and the label.

The task of Linsley et al. (2018) and Kim et al. (2020). All steps are taken for many pictures at
once; a contour that finds no way takes some dashes back.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64

from lru.dataloaders.sets.pathfinder_drawing import Drawing, Points, Style

_PLACES = 4
"""Places drawn for a dash, of which the first inside the picture is looked at; so many times"""
_ROUNDS = 6
"""as this, while it is too near to other dashes."""

_STEPS_BACK = 14
"""Most dashes that are taken back where the next finds no place."""

_PATIENCE = 4
"""Dashes drawn for each that stays, before a picture is given up."""

_SHARPEST = 0.7
"""Share of the sharpest turn with which a contour must still be able to turn before the border."""

_DISTRACTORS_TRIED = 3
_FAR = 1e6

_ANGLES = np.linspace(-np.pi / 2, np.pi / 2, 1025)
_ANGLES_BELOW = 0.5 + (_ANGLES + np.sin(_ANGLES) * np.cos(_ANGLES)) / np.pi
"""Share of angles of density proportional to cos² that are smaller."""

Rows = Int64[np.ndarray, " m"]
Proposal = tuple[Points, Float64[np.ndarray, "m tried"], Bool[np.ndarray, "m tried"]]
"""Middles [m, tried, 2] and headings of dashes, and whether they lie inside."""
Propose = Callable[[Rows], Proposal]
"""Makes dashes to try in the pictures of some rows."""


def draw(
    rng: np.random.Generator, n: int, style: Style, *, length: int, distractors: int
) -> Drawing:
    """Lay out up to `n` pictures: those whose contours find no way are given up.

    Args:
        rng: the only source of randomness.
        n: pictures to begin.
        style: how they look.
        length: dashes of each of the two contours with markers.
        distractors: distracting contours to find room for, of a third of the length.
    """
    short = max(length // 3, 1)
    sketch = _Sketch(rng, style, rng.choice(style.margins, n), 2 * length)
    sketch = sketch.chosen(_draw_contours(sketch, length), 2 * length + short * distractors)
    n = len(sketch.margins)
    labels, own = rng.integers(2, size=n), rng.integers(2, size=n)
    end = 2 * (length - 1) + (own ^ labels ^ 1)
    sketch.markers = np.stack([sketch.tip(own, -1), sketch.tip(end, 1)], axis=1)[:, :, None]
    for first in range(2 * length, sketch.centres.shape[1], short):
        _draw_distractor(sketch, first, short)
    markers = sketch.markers[:, :, 0]
    apart = np.linalg.norm(markers[:, 0] - markers[:, 1], axis=1)
    kept = apart >= 2 * style.marker + 1
    return Drawing(
        centres=sketch.centres[kept],
        headings=sketch.headings[kept],
        present=sketch.present[kept],
        contours=np.concatenate(
            [np.tile([0, 1], length), 2 + np.repeat(np.arange(distractors), short)]
        ),
        margins=sketch.margins[kept],
        markers=markers[kept],
        labels=labels[kept],
    )


class _Sketch:
    """Some pictures in the making; dashes are known by their number in each picture."""

    def __init__(
        self, rng: np.random.Generator, style: Style, margins: Int64[np.ndarray, " n"], dashes: int
    ):
        n = len(margins)
        self.rng, self.style, self.margins = rng, style, margins
        self.centres = np.zeros((n, dashes, 2))
        self.headings = np.zeros((n, dashes))
        # Three points of each dash, of those that are not there far away.
        self.points = np.full((n, dashes, 3, 2), _FAR, np.float32)
        self.markers = np.zeros((n, 0, 1, 2))

    @property
    def present(self) -> Bool[np.ndarray, "n dashes"]:
        """Mask of the dashes that there are."""
        return self.points[:, :, 0, 0] != _FAR

    def chosen(self, rows: Rows, dashes: int) -> "_Sketch":
        """Those pictures alone, with room for so many dashes."""
        part = _Sketch(self.rng, self.style, self.margins[rows], dashes)
        drawn = self.centres.shape[1]
        part.centres[:, :drawn], part.headings[:, :drawn] = self.centres[rows], self.headings[rows]
        part.points[:, :drawn] = self.points[rows]
        return part

    def tip(self, dashes: Int64[np.ndarray, " n"], way: int) -> Float64[np.ndarray, "n 2"]:
        """The end (way 1) or start (way -1) of one dash in each picture."""
        rows = np.arange(len(dashes))
        half = way * self.style.dash / 2
        return self.centres[rows, dashes] + half * _direction(self.headings[rows, dashes])

    def place(
        self, rows: Rows, dashes: Rows, propose: Propose, *, after: Rows | None = None
    ) -> Bool[np.ndarray, " m"]:
        """Put a dash into each picture of `rows`, where one that is proposed has room.

        Args:
            rows: the pictures.
            dashes: number that the dash gets in each of them.
            propose: makes the dashes to try.
            after: number of the dash before it in its contour, the only one it may be near to.

        Returns:
            In which pictures there was room.
        """
        found = np.zeros(len(rows), bool)
        for _ in range(_ROUNDS):
            left = np.flatnonzero(~found)
            if not len(left):
                break
            centres, headings, inside = propose(rows[left])
            first = np.arange(len(left)), inside.argmax(axis=1)
            centres, headings, inside = centres[first], headings[first], inside[first]
            last = None if after is None else after[left]
            clear = inside & self._clear(rows[left], centres, headings, last)
            placed = left[clear]
            at = rows[placed], dashes[placed]
            self.centres[at], self.headings[at] = centres[clear], headings[clear]
            self.points[at] = _along(centres[clear], headings[clear], self.style.dash)
            found[placed] = True
        return found

    def _clear(
        self,
        rows: Rows,
        centres: Float64[np.ndarray, "m 2"],
        headings: Float64[np.ndarray, " m"],
        last: Rows | None,
    ) -> Bool[np.ndarray, " m"]:
        """True for dashes that are far enough from the markers and from all dashes but the last."""
        style, dash = self.style, self.style.dash
        points = _along(centres, headings, dash).astype(np.float32)
        others = self.points[rows]
        if last is not None:
            others[np.arange(len(rows)), last] = _FAR
        # Each dash stands for three points: the nearest places of two lines are at most a quarter
        # of a dash from such points.
        clearance = (2 * self.margins[rows] + style.thickness) ** 2 + (dash / 4) ** 2
        clear = _nearest(points, others) >= clearance
        to_markers = (style.marker + self.margins[rows]) ** 2
        return clear & (_nearest(points, self.markers[rows]) >= to_markers)

    def _inside(
        self, centres: Float64[np.ndarray, "m tried 2"], headings: Float64[np.ndarray, "m tried"]
    ) -> Bool[np.ndarray, "m tried"]:
        """True for dashes inside the border."""
        points = _along(centres, headings, self.style.dash)
        least = self.style.border + self.style.thickness / 2
        inside = (points >= least) & (points <= self.style.side - least)
        return np.all(inside, axis=(-2, -1))

    def proposals_after(self, last: Rows, *, far: bool) -> Propose:
        """Dashes that continue the last of each picture, past a joint in the middle of the gap.

        Args:
            last: number of the dash before in each picture.
            far: whether the contour goes on after that, and has to stay inside.
        """

        def propose(rows: Rows) -> Proposal:
            step = self.style.dash + 2 * self.margins[rows, None]
            before = self.headings[rows, last[rows]]
            joints = self.centres[rows, last[rows]] + step / 2 * _direction(before)
            uniform = self.rng.uniform(size=(len(rows), _PLACES))
            turns = np.interp(uniform, _ANGLES_BELOW, _ANGLES) / self.style.continuity
            headings = before[:, None] + turns
            ways = _direction(headings)
            centres = joints[:, None] + step[:, None] / 2 * ways
            inside = self._inside(centres, headings)
            if far:
                inside &= self._can_turn(centres + self.style.dash / 2 * ways, ways, step)
            return centres, headings, inside

        return propose

    def _can_turn(
        self,
        ends: Float64[np.ndarray, "m tried 2"],
        ways: Float64[np.ndarray, "m tried 2"],
        step: Int64[np.ndarray, "m 1"] | Float64[np.ndarray, "m 1"],
    ) -> Bool[np.ndarray, "m tried"]:
        """True if the circle of sharp turns to the left, or that to the right, is all inside."""
        turn = _SHARPEST * np.pi / 2 / self.style.continuity
        radius = (step / (2 * np.sin(turn / 2)))[:, None]
        aside = radius * np.stack([-ways[..., 1], ways[..., 0]], axis=-1)
        least, most = self.style.border + radius, self.style.side - self.style.border - radius
        left, right = (
            ((least <= middle) & (middle <= most)).all(axis=-1)
            for middle in (ends - aside, ends + aside)
        )
        return left | right

    def proposals_from(self, starts: Callable[[Rows], Points]) -> Propose:
        """Dashes of any heading that start at random points."""

        def propose(rows: Rows) -> Proposal:
            headings = _any_direction(self.rng, len(rows))
            centres = starts(rows) + self.style.dash / 2 * _direction(headings)
            return centres, headings, self._inside(centres, headings)

        return propose


def _draw_contours(sketch: _Sketch, length: int) -> Rows:
    """Draw both contours with markers in turns: even and odd dashes; where it succeeded."""
    rng, style, n = sketch.rng, sketch.style, len(sketch.margins)
    first = np.zeros(n, np.int64)

    def well_inside(rows: Rows) -> Points:
        return rng.uniform(2 * style.start, style.side - 2 * style.start, (len(rows), _PLACES, 2))

    def near_the_first(rows: Rows) -> Points:
        aside = style.start * _direction(_any_direction(rng, len(rows)))
        return sketch.tip(first, -1)[rows, None] + aside

    begun = sketch.place(np.arange(n), first, sketch.proposals_from(well_inside))
    begun &= sketch.place(np.arange(n), first + 1, sketch.proposals_from(near_the_first))
    step = first + 2
    for _ in range(_PATIENCE * 2 * length):
        rows = np.flatnonzero(begun & (step < 2 * length))
        last = step - 2
        found = sketch.place(
            rows, step[rows], sketch.proposals_after(last, far=True), after=last[rows]
        )
        step[rows[found]] += 1
        stuck = rows[~found]
        back = rng.integers(1, _STEPS_BACK, size=len(stuck), endpoint=True)
        step[stuck] = np.maximum(step[stuck] - back, 2)
        taken_back = np.arange(2 * length) >= step[stuck, None]
        sketch.points[stuck] = np.where(taken_back[..., None, None], _FAR, sketch.points[stuck])
    return np.flatnonzero(begun & (step == 2 * length))


def _draw_distractor(sketch: _Sketch, first: int, length: int) -> None:
    """Draw a contour of dashes `first` and on that starts anywhere; where it fails, nothing."""
    n = len(sketch.margins)

    def anywhere(rows: Rows) -> Points:
        return sketch.rng.uniform(0, sketch.style.side, (len(rows), _PLACES, 2))

    left = np.arange(n)
    for _ in range(_DISTRACTORS_TRIED):
        dash = np.full(n, first)
        rows = left[sketch.place(left, dash[left], sketch.proposals_from(anywhere))]
        for _ in range(length - 1):
            last, dash = dash, dash + 1
            propose = sketch.proposals_after(last, far=False)
            rows = rows[sketch.place(rows, dash[rows], propose, after=last[rows])]
        left = np.setdiff1d(left, rows, assume_unique=True)
        sketch.points[left, first : first + length] = _FAR


def _nearest(
    points: Float32[np.ndarray, "m k 2"], others: Float[np.ndarray, "m others l 2"]
) -> Float[np.ndarray, " m"]:
    """Squared distance of the nearest two of some points and others."""
    m, count, each, _ = others.shape
    theirs = others.reshape(m, 1, count * each, 2)
    down, right = (points[:, :, None, axis] - theirs[..., axis] for axis in (0, 1))
    return (down * down + right * right).min(axis=(1, 2), initial=np.inf)


def _direction(headings: Float64[np.ndarray, "..."]) -> Points:
    return np.stack([np.cos(headings), np.sin(headings)], axis=-1)


def _any_direction(rng: np.random.Generator, rows: int) -> Float64[np.ndarray, "rows tried"]:
    return rng.uniform(-np.pi, np.pi, (rows, _PLACES))


def _along(centres: Points, headings: Float64[np.ndarray, "..."], length: float) -> Points:
    """Both ends and the middle of dashes, `[..., 3, 2]`."""
    half = length / 2 * _direction(headings)
    return np.stack([centres - half, centres, centres + half], axis=-2)
