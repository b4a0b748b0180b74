"""Findings: what fits together, and what is refused."""

import numpy as np
import pytest

from lru.tasks import (
    Animation,
    Bars,
    ConfusionMatrix,
    Curves,
    HeatMap,
    Histogram,
    Picture,
    PictureGrid,
)

PICTURE = Picture(np.zeros((2, 2, 3), np.uint8))


def test_a_confusion_matrix_has_shares_of_the_real_classes():
    shares = ConfusionMatrix(np.array([[3, 1], [0, 0]]), ["cat", "dog"]).shares()
    np.testing.assert_array_equal(shares.values, [[0.75, 0.25], [np.nan, np.nan]])
    assert (shares.x_label, shares.y_label, shares.x_names) == ("predicted", "real", ["cat", "dog"])


def test_a_histogram_leaves_out_what_is_not_finite():
    np.testing.assert_array_equal(Histogram([[1, np.nan], [np.inf, 2]]).finite(), [1, 2])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PictureGrid([]), "pictures must be at least one"),
        (lambda: PictureGrid([PICTURE], ["a", "b"]), "titles must be 1, or empty, got 2"),
        (lambda: HeatMap(np.zeros((2, 0))), r"a matrix, got shape \(2, 0\)"),
        (lambda: HeatMap(np.zeros((2, 3)), x_names=["a"]), "x_names must be 3, or empty, got 1"),
        (lambda: HeatMap(np.zeros((2, 3)), y_names=["a"]), "y_names must be 2, or empty, got 1"),
        (lambda: ConfusionMatrix(np.zeros((0, 0))), r"a square matrix, got shape \(0, 0\)"),
        (lambda: ConfusionMatrix(np.eye(2), ["a"]), "names must be 2, or empty, got 1"),
        (lambda: Bars({}), "as many heights each, got none"),
        (lambda: Bars({"a": [1], "b": [1, 2]}), r"a of shape \(1,\), b of shape \(2,\)"),
        (lambda: Bars({"a": [1]}, ["x", "y"]), "names must be 1, or empty, got 2"),
        (lambda: Bars({"a": [1]}, deviations={"b": [1]}), r"of series.*b of shape \(1,\)"),
        (lambda: Curves({"a": ([1, 2], [1])}), r"'a' has shapes \(2,\) and \(1,\)"),
        (lambda: Animation([]), "got 0 for 0.5 seconds"),
        (lambda: Animation([PICTURE], seconds=0.0), "got 1 for 0.0 seconds"),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
