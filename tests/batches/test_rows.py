"""Plans, buckets, padding, shards and delivery of batches."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lru.batches import Batches, DataConfig
from lru.batches.plan import bucket_bounds, plan_epoch
from lru.dataloaders import Dense, Pairs, Ragged, dataset_from_options

all_lengths = st.lists(st.integers(0, 40), min_size=1, max_size=60).map(np.array)
quickly = settings(deadline=None, max_examples=40)


def ragged(lengths, per_step=False) -> Ragged:
    """Row i holds i + 1 only, so that a batch tells which rows it was made of."""
    lengths = np.asarray(lengths, np.int64)
    values = np.repeat(np.arange(1, len(lengths) + 1), lengths).astype(np.uint16)
    labels = np.arange(len(lengths), dtype=np.int32)
    if per_step:
        labels = np.repeat(labels[:, None], lengths.max(), axis=1)
        labels[:, 0] = -1
    return Ragged(values, np.concatenate([[0], np.cumsum(lengths)]), labels)


def dense(rows=10, steps=4, per_step=False) -> Dense:
    inputs = np.arange(rows * steps, dtype=np.float32).reshape(rows, steps, 1)
    labels = np.arange(rows, dtype=np.int32)
    return Dense(inputs, np.repeat(labels[:, None], steps, 1) if per_step else labels)


def batches(
    split, batch_size=4, seed: int | None = 0, shard=(0, 1), bounds=None, **config
) -> Batches:
    config = DataConfig(batch_size=batch_size, **config)
    return Batches(split, config, seed=seed, bounds=bounds).shared(shard)


def assert_equal(batch, other):
    for name, left, right in zip(batch._fields, batch, other, strict=True):
        assert (left is None) == (right is None), name
        if left is not None:
            assert left.dtype == right.dtype, name
            np.testing.assert_array_equal(left, right, err_msg=name)


# Bucket bounds.


def steps_padded_to(bounds, lengths):
    return np.asarray(bounds)[np.searchsorted(bounds, lengths)].sum()


@quickly
@given(st.lists(st.integers(1, 12), min_size=1, max_size=30).map(np.array), st.integers(1, 4))
def test_bounds_waste_the_least_of_all_choices(lengths, n_buckets):
    found = bucket_bounds(lengths, n_buckets)
    longest = lengths.max()
    best = min(
        steps_padded_to([*others, longest], lengths)
        for k in range(n_buckets)
        for others in itertools.combinations(range(1, longest), k)
    )
    assert steps_padded_to(found, lengths) == best


@quickly
@given(all_lengths, st.integers(1, 10))
def test_bounds_ascend_hold_the_longest_and_are_few(lengths, n_buckets):
    bounds = bucket_bounds(lengths, n_buckets)
    assert (np.diff(bounds) > 0).all()
    assert bounds[-1] == max(lengths.max(), 1)
    assert len(bounds) <= n_buckets
    assert bounds[0] >= 1


def test_bounds_of_many_different_lengths_are_near_the_best():
    lengths = np.random.default_rng(0).geometric(1 / 500, 20_000)
    assert len(np.unique(lengths)) > 1000
    bounds = bucket_bounds(lengths, 2)
    every = np.unique(lengths)
    best = min(steps_padded_to([first, every[-1]], lengths) for first in every[:-1])
    assert steps_padded_to(bounds, lengths) < 1.01 * best


# Plans.


@quickly
@given(all_lengths, st.integers(1, 9), st.integers(1, 5), st.sampled_from([None, 0, 7]))
def test_a_plan_deals_every_example_once_into_full_batches_that_hold_it(
    lengths, batch_size, n_buckets, seed
):
    bounds = bucket_bounds(lengths, n_buckets)
    rng = None if seed is None else np.random.default_rng(seed)
    plan = plan_epoch(lengths, batch_size, bounds, rng)
    assert sorted(np.concatenate(plan.rows)) == list(range(len(lengths)))
    sizes = sorted(map(len, plan.rows))
    assert sizes[1:] == [batch_size] * (len(sizes) - 1)
    assert 1 <= sizes[0] <= batch_size
    assert len(sizes) == -(-len(lengths) // batch_size)
    assert set(plan.padded_lengths) <= set(bounds)
    for rows, length in zip(plan.rows, plan.padded_lengths, strict=True):
        assert lengths[rows].max() <= length


def same_plan(plan, other):
    return plan.padded_lengths == other.padded_lengths and all(
        map(np.array_equal, plan.rows, other.rows)
    )


def test_a_plan_is_a_function_of_seed_and_epoch():
    split = ragged(np.arange(1, 51))
    plan = batches(split, seed=3).plan(2)
    asked_before = batches(split, seed=3)
    list(asked_before.epoch(0))
    asked_before.plan(5)
    assert same_plan(asked_before.plan(2), plan)
    assert not same_plan(asked_before.plan(3), plan)
    assert not same_plan(batches(split, seed=4).plan(2), plan)


def test_evaluation_has_one_order_for_all_epochs():
    evaluation = batches(ragged(np.arange(1, 51)), seed=None)
    assert same_plan(evaluation.plan(0), evaluation.plan(9))
    assert same_plan(evaluation.plan(0), batches(ragged(np.arange(1, 51)), seed=None).plan(0))


def test_shuffling_mixes_examples_and_the_order_of_lengths():
    plan = batches(ragged(np.arange(1, 401)), n_buckets=4).plan(0)
    assert not np.array_equal(np.concatenate(plan.rows), np.arange(400))
    changes = np.diff(plan.padded_lengths) != 0
    assert changes.sum() > 20
    # Every example meets others than its neighbours in the data.
    assert np.mean([np.ptp(rows) for rows in plan.rows]) > 40


# Groups.


def grouped(batch_size=6, seed: int | None = 0, shard=(0, 1)) -> Batches:
    """Two rows of a first group, three of a second and one of a third, of different lengths."""
    split = ragged([3, 1, 2, 2, 4, 1])
    config = DataConfig(batch_size=batch_size)
    return Batches(split, config, seed=seed, groups=(2, 3, 1)).shared(shard)


def test_every_batch_has_as_many_rows_of_each_group_in_turn():
    loader = grouped(300)
    (batch,) = loader.epoch(0)
    rows = batch.inputs[:, 0] - 1
    assert np.digitize(rows, [2, 5]).tolist() == [0, 1, 2] * 100
    assert loader.steps_per_epoch == 1
    # Drawn with replacement, all as likely: 100 draws of 2, of 3 and of 1 row.
    assert np.bincount(rows) == pytest.approx([50, 50, 33, 33, 33, 100], abs=15)
    assert batch.inputs.shape == (300, 4)
    assert loader.padding_share() == pytest.approx(1 - batch.lengths.sum() / batch.inputs.size)


def test_groups_are_drawn_by_seed_and_epoch_alone_and_shared_by_processes():
    loader = grouped(3)
    assert loader.steps_per_epoch == len(loader.plan(0).rows) == 2
    list(loader.epoch(0))
    assert same_plan(loader.plan(2), grouped(3).plan(2))
    assert not same_plan(loader.plan(3), loader.plan(2))
    assert_equal(list(loader.epoch(2))[1], next(grouped(3).epoch(2, start=1)))
    whole = grouped(6).selections(1)[0].rows
    shares = [grouped(6, shard=(index, 2)).selections(1)[0].rows for index in range(2)]
    np.testing.assert_array_equal(np.concatenate(shares), whole)


def test_groups_need_a_batch_size_that_they_divide():
    with pytest.raises(ValueError, match=r"batch_size must be a multiple of 3, as .* got 8"):
        grouped(8)


# Bucketing.


def test_bucketing_pads_less_with_few_shapes():
    lengths = np.random.default_rng(0).geometric(1 / 20, 500)
    bucketed, plain = (batches(ragged(lengths), 8, bucketing=on) for on in (True, False))
    assert plain.bounds.tolist() == [lengths.max()]
    assert bucketed.padding_share() < 0.5 * plain.padding_share()
    for loader, most in ((bucketed, 8), (plain, 1)):
        shapes = {batch.inputs.shape for batch in loader.epoch(0)}
        assert len(shapes) <= most


@quickly
@given(all_lengths, st.integers(1, 9), st.booleans())
def test_the_padding_share_is_that_of_the_rows_delivered(lengths, batch_size, bucketing):
    loader = batches(ragged(lengths), batch_size, bucketing=bucketing)
    delivered = [(batch.weights.sum(), batch.inputs.shape[1]) for batch in loader.epoch(0)]
    steps = sum(rows * length for rows, length in delivered)
    np.testing.assert_allclose(loader.padding_share(), 1 - lengths.sum() / steps)


def savings(split, **config):
    """How many times fewer an epoch has with 8 buckets: steps in all, and steps of padding."""
    shares = [batches(split, bucketing=on, **config).padding_share() for on in (True, False)]
    bucketed, plain = (1 / (1 - share) for share in shares)
    return plain / bucketed, (plain - 1) / (bucketed - 1)


def test_bucketing_skewed_lengths_saves_as_it_should():
    """Lengths like those of reviews: mostly short, some as long as is allowed."""
    drawn = np.random.default_rng(0).lognormal(np.log(900), 0.7, 2000)
    split = ragged(np.minimum(drawn, 4096).astype(int))
    of_all, of_padding = savings(split, batch_size=32)
    assert of_all > 2.5
    assert of_padding > 10
    assert len(programs(batches(split, batch_size=32))) <= 8


@pytest.mark.parametrize(("name", "least_of_all"), [("imdb", 2.7), ("listops", 1.7)])
def test_bucketing_the_real_lengths_saves_as_it_should(name, least_of_all, real_data, tmp_path):
    """Steps of ListOps, 501 to 1,999 of mean 1,035, could be 1.93 times fewer at the very most."""
    data = dataset_from_options(f"{name}-classification").load(real_data, tmp_path)
    of_all, of_padding = savings(data.train, batch_size=32)
    assert of_all >= least_of_all
    assert of_padding >= 1.8
    loader = batches(data.train, 32)
    assert len(programs(loader)) <= 8
    rows = np.concatenate(loader.plan(3).rows)
    np.testing.assert_array_equal(np.sort(rows), np.arange(len(data.train)))


@quickly
@given(all_lengths, all_lengths, st.integers(1, 4))
def test_bounds_of_another_split_are_used_again(lengths, other, n_buckets):
    bounds = batches(ragged(lengths), n_buckets=n_buckets).bounds
    loader = batches(ragged(other), seed=None, n_buckets=n_buckets, bounds=bounds)
    longest = max(other.max(), 1)
    assert loader.bounds[-1] >= longest
    # At most one more, and only for longer rows; none that no row needs.
    assert set(loader.bounds) - set(bounds) == ({longest} if longest > bounds[-1] else set())
    assert loader.bounds[-2:][0] < longest or len(loader.bounds) == 1
    assert (np.diff(loader.bounds) > 0).all()
    delivered = list(loader.epoch())
    assert sum(batch.weights.sum() for batch in delivered) == len(other)
    assert {batch.inputs.shape[1] for batch in delivered} <= set(loader.bounds)


def test_dense_data_has_one_shape_and_no_padding():
    loader = batches(dense(10, 4))
    assert loader.bounds.tolist() == [4]
    assert loader.padding_share() == 0


# Batches.


@pytest.mark.parametrize("per_step", [False, True])
def test_batches_hold_their_rows_padded_right(per_step):
    lengths = [5] * 7 if per_step else [3, 1, 5, 2, 5, 4, 1]
    split = ragged(lengths, per_step)
    seen = []
    for batch in batches(split).epoch(0):
        assert batch.inputs.dtype == np.uint16
        for i in np.flatnonzero(batch.weights):
            row = int(batch.inputs[i, 0]) - 1
            seen.append(row)
            n = lengths[row]
            assert (batch.inputs[i, :n] == row + 1).all()
            assert (batch.inputs[i, n:] == 0).all()
            assert batch.lengths is None or batch.lengths[i] == n
            expected = split.labels_of([row], batch.inputs.shape[1])[0]
            np.testing.assert_array_equal(batch.labels[i], expected)
    assert sorted(seen) == list(range(7))


def test_pairs_are_batched_by_their_longer_documents():
    first, second = [1, 9, 2, 8], [2, 1, 1, 9]
    documents = [ragged(lengths) for lengths in (first, second)]
    loader = batches(Pairs(*documents), batch_size=2, n_buckets=2)
    assert loader.bounds.tolist() == [2, 9]
    found = {}
    for batch in loader.epoch():
        assert batch.inputs.dtype == np.uint16
        for pair, lengths, label in zip(batch.inputs, batch.lengths, batch.labels, strict=True):
            found[int(label)] = (batch.inputs.shape, lengths.tolist())
            for document, length in zip(pair, lengths, strict=True):
                assert (document[:length] == label + 1).all()
                assert not document[length:].any()
    assert found == {
        row: ((2, 2, 9 if row in (1, 3) else 2), [first[row], second[row]]) for row in range(4)
    }
    assert loader.padding_share() == pytest.approx(1 - 33 / (2 * (2 * 2 + 2 * 9)))


@pytest.mark.parametrize("per_step", [False, True])
@pytest.mark.parametrize("split", [dense, ragged], ids=["dense", "ragged"])
def test_rows_that_fill_up_the_last_batch_weigh_nothing(split, per_step):
    data = split(6, 3, per_step) if split is dense else split([3] * 6, per_step)
    full, last = batches(data, seed=None).epoch(0)
    assert full.lengths is None
    assert full.weights.tolist() == [1, 1, 1, 1]
    assert last.weights.tolist() == [1, 1, 0, 0]
    assert last.lengths.tolist() == [3, 3, 0, 0]
    assert [leaf.shape for leaf in full[:3]] == [leaf.shape for leaf in last[:3]]
    assert not last.inputs[2:].any()


def programs(loader):
    """What has to be compiled for an epoch: shapes, and whether there are lengths."""
    return {(batch.inputs.shape, batch.lengths is None) for batch in loader.epoch()}


@quickly
@given(all_lengths, st.integers(1, 9))
def test_lengths_are_left_out_where_all_examples_have_one_and_no_row_is_a_filler(lengths, size):
    loader = batches(ragged(lengths), size)
    plan = loader.plan(0)
    one_length = lengths.min() == lengths.max() > 0
    for batch, rows in zip(loader.epoch(0), plan.rows, strict=True):
        assert (batch.lengths is None) == (one_length and len(rows) == size)
        if batch.lengths is not None:
            np.testing.assert_array_equal(batch.lengths[: len(rows)], lengths[rows])
            assert batch.lengths.dtype == np.int32
    assert len(programs(loader)) <= (2 if one_length else len(loader.bounds))


def test_an_epoch_continues_at_any_batch():
    loader = batches(ragged(np.arange(1, 31)))
    whole = list(loader.epoch(1))
    assert len(whole) == loader.steps_per_epoch == 8
    for start in range(len(whole) + 1):
        rest = list(loader.epoch(1, start=start))
        assert len(rest) == len(whole) - start
        for batch, other in zip(rest, whole[start:], strict=True):
            assert_equal(batch, other)


def test_a_batch_may_be_larger_than_the_split():
    (batch,) = batches(dense(3), batch_size=8).epoch(0)
    assert batch.inputs.shape == (8, 4, 1)
    assert batch.weights.sum() == 3


@quickly
@given(all_lengths, st.integers(1, 4), st.integers(1, 4), st.sampled_from([None, 0]))
def test_shards_share_each_batch_out(lengths, count, rows_each, seed):
    split, size = ragged(lengths), count * rows_each
    whole = list(batches(split, size, seed).epoch(0))
    shards = [list(batches(split, size, seed, (i, count)).epoch(0)) for i in range(count)]
    for k, batch in enumerate(whole):
        parts = [shard[k] for shard in shards]
        assert {part.inputs.shape for part in parts} == {(rows_each, batch.inputs.shape[1])}
        assert {part.lengths is None for part in parts} == {batch.lengths is None}
        for name in ("inputs", "labels", "weights", "lengths"):
            if getattr(batch, name) is not None:
                joined = np.concatenate([getattr(part, name) for part in parts])
                np.testing.assert_array_equal(joined, getattr(batch, name), err_msg=name)


# Refusals.


def test_a_batch_size_that_the_processes_cannot_share_is_refused():
    with pytest.raises(ValueError, match="batch_size must be a multiple of the 3 processes, got 4"):
        batches(dense(), shard=(0, 3))


def test_an_empty_split_is_refused():
    with pytest.raises(ValueError, match="the split is empty"):
        batches(dense(0))


@pytest.mark.parametrize("name", ["batch_size", "n_buckets"])
def test_counts_must_be_positive(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        DataConfig(**{name: 0})
