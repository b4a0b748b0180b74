import numpy as np
import pytest

from lru.dataloaders.sets.adding import Adding, sum_ranges

SMALL = Adding(n_train=3_000, n_val=5, n_test=7, length=11)


def test_labels_are_the_ranges_of_the_sums_of_the_marked_numbers(raw_dir, cache_dir):
    prepared = SMALL.load(raw_dir, cache_dir)
    assert [len(split) for split in (prepared.train, prepared.val, prepared.test)] == [3_000, 5, 7]
    numbers, marks = np.moveaxis(prepared.train.inputs, 2, 0)
    assert set(np.unique(marks)) == {0, 1}
    assert (marks[:, :5].sum(1) == 1).all()
    assert (marks[:, 5:].sum(1) == 1).all()
    total = (numbers * marks).sum(1)
    order = np.argsort(total)
    assert (np.diff(prepared.train.labels[order]) >= 0).all()
    counts = np.bincount(prepared.train.labels, minlength=10)
    assert np.abs(counts - 300).max() < 5 * np.sqrt(300)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert prepared.card.mean == pytest.approx([0.5, 2 / 11], abs=0.01)


def test_ranges_are_as_likely_as_each_other():
    draws = np.random.default_rng(0).random((100_000, 2)).sum(1)
    for n_classes in (2, 3, 10):
        share = np.bincount(sum_ranges(draws, n_classes)) / len(draws)
        assert share == pytest.approx([1 / n_classes] * n_classes, abs=0.006)
    assert sum_ranges(np.array([0.0, 0.999, 1.0, 2.0]), 2).tolist() == [0, 0, 1, 1]


def test_every_step_of_its_half_can_be_marked(raw_dir, cache_dir):
    marks = SMALL.load(raw_dir, cache_dir).train.inputs[:, :, 1]
    assert (marks.sum(0) > 0).all()


def test_options_out_of_range_are_named():
    with pytest.raises(ValueError, match="length is 1, but must be at least 2"):
        Adding(length=1)
