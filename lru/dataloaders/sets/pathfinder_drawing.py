"""Drawing of pictures of the Pathfinder task: dashed contours and two round markers.

In the sizes that the Long Range Arena (Tay et al. 2021, section 2.2.5) chose.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8

Points = Float64[np.ndarray, "... 2"]
"""Rows and columns in pixels, from the corner of the picture."""


@dataclass(frozen=True)
class Style:
    """Style of pictures of one size; lengths in pixels.

    Attributes:
        side: height and width.
        border: what is left free all around.
        dash: length of a dash.
        thickness: of a dash.
        margins: half the gap between dashes; each picture has one of them.
        marker: radius of a marker.
        start: distance between the starts of both contours.
        continuity: how straight contours are.
        distracting: dashes of all distracting contours together.
        contrast: brightness of a dash that covers its pixels.
    """

    side: int
    border: int
    dash: float
    thickness: float
    margins: tuple[int, ...]
    marker: float
    start: float
    continuity: float
    distracting: int
    contrast: float


STYLES = {
    32: Style(32, 1, 2.0, 0.5, (1,), 1.5, 7.0, 1.0, 20, 1.5),
    64: Style(64, 1, 5.0, 1.0, (1,), 2.5, 12.0, 1.8, 22, 0.8),
    128: Style(128, 1, 5.0, 1.5, (2, 3), 3.0, 20.0, 1.8, 35, 0.9),
    256: Style(256, 22, 5.0, 2.0, (3,), 5.0, 27.0, 1.8, 30, 1.0),
}
"""By side, as published."""


@dataclass(frozen=True)
class Drawing:
    """Contents of some pictures, before they are drawn.

    Attributes:
        centres: middle of each dash.
        headings: direction of each dash, in radians from the rows' direction.
        present: which dashes there are; distracting contours may not have found room.
        contours: which contour a dash belongs to; 0 and 1 are those with the markers.
        margins: half the gap between neighbouring dashes.
        markers: middle of both markers.
        labels: 1 if both markers are on one contour, else 0.
    """

    centres: Float64[np.ndarray, "n dashes 2"]
    headings: Float64[np.ndarray, "n dashes"]
    present: Bool[np.ndarray, "n dashes"]
    contours: Int64[np.ndarray, " dashes"]
    margins: Int64[np.ndarray, " n"]
    markers: Float64[np.ndarray, "n 2 2"]
    labels: Int64[np.ndarray, " n"]


def render(drawing: Drawing, style: Style) -> UInt8[np.ndarray, "n side side"]:
    """The pictures; lines are as bright as the share of a pixel that they cover."""
    reach = int(np.ceil(max(style.dash + style.thickness, 2 * style.marker) / 2)) + 1
    size = style.side + 2 * reach
    canvas = np.zeros((len(drawing.labels), size, size), np.float32)

    def stroke(
        rows: np.ndarray, centres: Points, headings: np.ndarray, length: float, width: float
    ) -> None:
        """Lines with round ends, on the canvas of `rows`."""
        corner = np.floor(centres).astype(np.int64)
        pixels = corner[:, None] + np.arange(-reach, reach + 1)[:, None]
        offsets = (pixels + 0.5 - centres[:, None]).astype(np.float32)
        down, right = offsets[:, :, None, 0], offsets[:, None, :, 1]
        cosine, sine = (f(headings).astype(np.float32)[:, None, None] for f in (np.cos, np.sin))
        along = np.clip(down * cosine + right * sine, -length / 2, length / 2)
        distance = np.hypot(down - along * cosine, right - along * sine)
        ink = np.clip((width + 1) / 2 - distance, 0, min(width, 1))
        where = rows[:, None, None], *(pixels[:, :, axis] + reach for axis in (0, 1))
        where = where[0], where[1][:, :, None], where[2][:, None, :]
        canvas[where] = np.maximum(canvas[where], ink)

    for dash in range(drawing.present.shape[1]):
        rows = np.flatnonzero(drawing.present[:, dash])
        centres, headings = drawing.centres[rows, dash], drawing.headings[rows, dash]
        stroke(rows, centres, headings, style.dash, style.thickness)
    canvas *= style.contrast
    rows = np.arange(len(canvas))
    for centres in drawing.markers.swapaxes(0, 1):
        stroke(rows, centres, np.zeros(len(rows)), 0.0, 2 * style.marker)
    inside = canvas[:, reach:-reach, reach:-reach]
    return np.rint(np.minimum(inside, 1) * 255).astype(np.uint8)
