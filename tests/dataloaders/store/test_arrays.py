import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lru.dataloaders.store.arrays import NO_TARGET, Dense, Pairs, Ragged

ROWS = st.lists(st.lists(st.integers(1, 255), min_size=0, max_size=9), min_size=1, max_size=6)


def ragged(rows: list[list[int]], labels: np.ndarray | None = None) -> Ragged:
    values = np.array([token for row in rows for token in row], np.uint8)
    offsets = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    return Ragged(
        values, offsets, np.arange(len(rows), dtype=np.int32) if labels is None else labels
    )


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, data=st.data())
def test_ragged_rows_come_back_padded_with_zeros(rows, data):
    split = ragged(rows)
    indices = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=8))
    length = max((len(rows[i]) for i in indices), default=0) + data.draw(st.integers(0, 3))
    padded = split.padded(np.array(indices, np.int64), length)
    assert padded.dtype == np.uint8
    assert padded.tolist() == [rows[i] + [0] * (length - len(rows[i])) for i in indices]
    assert split.labels_of(np.array(indices, np.int64), length).tolist() == indices
    assert split.lengths.tolist() == [len(row) for row in rows]
    assert len(split) == len(rows)


@given(rows=ROWS.filter(any))
@settings(max_examples=30, deadline=None)
def test_ragged_refuses_a_length_below_the_longest_chosen_row(rows):
    split = ragged(rows)
    longest = max(range(len(rows)), key=lambda i: len(rows[i]))
    with pytest.raises(ValueError, match=rf"longest chosen row \({len(rows[longest])}\)"):
        split.padded([longest], len(rows[longest]) - 1)


def test_only_chosen_rows_limit_the_length():
    split = ragged([[1], [1, 2, 3]])
    assert split.padded([0], 1).tolist() == [[1]]


def test_negative_indices_count_from_the_end():
    split = ragged([[1], [1, 2, 3]])
    assert split.padded([-1], 3).tolist() == [[1, 2, 3]]


@pytest.mark.parametrize("bad", [2, -3])
def test_an_index_outside_is_refused(bad):
    with pytest.raises(IndexError):
        ragged([[1], [2]]).padded([bad], 4)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_ragged_rows_of_values_come_back_padded_with_zeros(dtype):
    values = np.arange(1, 9).reshape(4, 2).astype(dtype)
    split = Ragged(values, np.array([0, 1, 1, 4]), np.zeros(3, np.int32))
    padded = split.padded([2, 0, 1], 4)
    assert padded.dtype == split.blank.dtype == dtype
    zero = split.blank.tolist()
    assert padded.tolist() == [
        [[3, 4], [5, 6], [7, 8], zero],
        [[1, 2], zero, zero, zero],
        [zero] * 4,
    ]


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 5), steps=st.integers(1, 6), extra=st.integers(0, 3), data=st.data())
def test_dense_rows_and_labels_of_steps_are_padded(n, steps, extra, data):
    inputs = np.arange(1, n * steps * 2 + 1, dtype=np.float32).reshape(n, steps, 2)
    labels = np.arange(n * steps, dtype=np.int32).reshape(n, steps)
    split = Dense(inputs, labels)
    indices = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=1)), np.int64)
    padded, targets = split.padded(indices, steps + extra), split.labels_of(indices, steps + extra)
    assert padded.dtype == np.float32
    np.testing.assert_array_equal(padded[:, :steps], inputs[indices])
    np.testing.assert_array_equal(padded[:, steps:], 0)
    np.testing.assert_array_equal(targets[:, :steps], labels[indices])
    np.testing.assert_array_equal(targets[:, steps:], NO_TARGET)
    assert targets.dtype == np.int32
    assert split.lengths.tolist() == [steps] * n


def test_dense_refuses_a_length_below_its_own():
    split = Dense(np.ones((2, 4, 1), np.uint8), np.zeros((2, 4), np.int32))
    with pytest.raises(ValueError, match="length 3 is shorter"):
        split.padded([0], 3)
    with pytest.raises(ValueError, match="length 3 is shorter"):
        split.labels_of([0], 3)


def test_labels_of_steps_of_short_rows_are_cut_like_them():
    labels = np.array([[3, 4, NO_TARGET], [5, 6, 7]], np.int32)
    split = ragged([[1, 2], [3, 4, 5]], labels)
    assert split.labels_of([0], 2).tolist() == [[3, 4]]
    assert split.labels_of([0, 1], 4).tolist() == [[3, 4, -1, -1], [5, 6, 7, -1]]
    assert split.labels_of([0], 2).dtype == np.int32
    with pytest.raises(ValueError, match="length 2 is shorter"):
        split.labels_of([1], 2)


@pytest.mark.parametrize("of_steps", [False, True])
def test_labels_that_are_values_are_padded_with_nan(of_steps):
    labels = np.arange(12, dtype=np.float32).reshape((2, 3, 2) if of_steps else (2, 6))
    for split in (ragged([[1, 2], [3, 4, 5]], labels), Dense(np.ones((2, 3, 1), np.uint8), labels)):
        chosen = split.labels_of([1], 4)
        assert chosen.dtype == np.float32
        beyond = [[[np.nan, np.nan]]] if of_steps else np.empty((1, 0))
        np.testing.assert_array_equal(chosen, np.append(labels[1:], beyond, axis=1))


def test_what_is_returned_can_be_written_to():
    inputs = np.ones((2, 4, 1), np.uint8)
    split = Dense(inputs, np.zeros(2, np.int32))
    split.padded([0], 4)[:] = 7
    assert inputs.max() == 1


def test_labels_and_offsets_must_fit():
    # Here the annotations are enforced as well, and come first.
    with pytest.raises((ValueError, TypeError), match="labels"):
        Dense(np.ones((2, 4, 1), np.uint8), np.zeros(3, np.int32))
    with pytest.raises(ValueError, match="labels have shape"):
        ragged([[1, 2], [3, 4]], np.zeros((2, 3), np.int32))
    with pytest.raises(ValueError, match=r"shape \(2, 3, 1\), but the rows need \(2, 2, K\)"):
        ragged([[1, 2], [3, 4]], np.zeros((2, 3, 1), np.float32))
    with pytest.raises(ValueError, match="offsets must run"):
        Ragged(np.ones(3, np.uint8), np.array([0, 2], np.int64), np.zeros(1, np.int32))


def pairs(rows: list[tuple[list[int], list[int]]]) -> Pairs:
    return Pairs(*(ragged([list(row[i]) for row in rows]) for i in (0, 1)))


def test_pairs_come_back_as_two_padded_documents():
    split = pairs([([1, 2], [3]), ([4], [5, 6, 7]), ([], [8])])
    assert len(split) == 3
    assert split.lengths.tolist() == [2, 3, 1]
    assert split.lengths_of([1, 0]).tolist() == [[1, 3], [2, 1]]
    padded = split.padded([1, 0], 4)
    assert padded.dtype == np.uint8
    assert padded.tolist() == [[[4, 0, 0, 0], [5, 6, 7, 0]], [[1, 2, 0, 0], [3, 0, 0, 0]]]
    assert split.labels_of([2, 1], 4).tolist() == [2, 1]


@pytest.mark.parametrize("row", [0, 1])
def test_pairs_refuse_a_length_below_the_longer_document(row):
    split = pairs([([1, 2, 3], [3]), ([4], [5, 6, 7])])
    with pytest.raises(ValueError, match="length 2 is shorter"):
        split.padded([row], 2)


def test_documents_of_pairs_must_be_as_many_and_of_one_label():
    with pytest.raises(ValueError, match="there are 2 first and 1 second documents"):
        Pairs(ragged([[1], [2]]), ragged([[1]]))
    with pytest.raises(ValueError, match="same one label"):
        Pairs(ragged([[1]]), ragged([[2]], np.array([5], np.int32)))
    steps = ragged([[1]], np.zeros((1, 1), np.int32))
    with pytest.raises(ValueError, match="same one label"):
        Pairs(steps, steps)
