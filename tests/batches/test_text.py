import itertools

import numpy as np
import pytest

from lru.batches import StreamFeed, Streams
from lru.batches.text import FARTHEST, SHORTEST
from lru.dataloaders import Ragged

BOUNDARY = 7


def text(tokens: int) -> Ragged:
    values = np.random.default_rng(0).integers(50, size=tokens).astype(np.uint8)
    return Ragged(values, np.array([0, tokens]), np.array([-1], np.int32))


def streams(
    tokens: int = 1000, rows: int = 4, bptt: int = 70, *, seed: int | None = None, n_bounds: int = 8
) -> Streams:
    return Streams(text(tokens), rows, bptt, boundary=BOUNDARY, seed=seed, n_bounds=n_bounds)


def targets_and_inputs(batches) -> tuple[list[int], list[int]]:
    """What each stream has, one stream after the other."""
    rows: list[list[tuple[int, int]]] = [[] for _ in range(len(batches[0].targets))]
    for batch in batches:
        for row, valid in enumerate(batch.weights):
            pairs = zip(batch.targets[row], batch.inputs[row], strict=True)
            rows[row] += itertools.compress(pairs, valid)
    targets, inputs = zip(*itertools.chain(*rows), strict=True)
    return list(targets), list(inputs)


@pytest.mark.parametrize("tokens", [1000, 997, 41, 9])
@pytest.mark.parametrize(("rows", "seed"), [(1, None), (8, None), (8, 0)])
def test_each_token_is_a_target_once_an_epoch_after_the_one_before_it(tokens, rows, seed):
    made = streams(tokens, rows, 20, seed=seed)
    for epoch in range(3):
        batches = list(made.epoch(epoch))
        assert len(batches) == made.steps_per_epoch
        targets, inputs = targets_and_inputs(batches)
        expected = text(tokens).values.tolist()
        assert targets == expected
        assert inputs == [BOUNDARY, *expected[:-1]]


def test_a_row_goes_on_where_it_ended_and_says_where_it_starts():
    made = streams(bptt=30)
    before, *rest = made.epoch()
    assert before.first
    for batch in rest:
        assert not batch.first
        assert batch.inputs[:, 0].tolist() == before.targets[:, -1].tolist()
        before = batch


def test_equal_chunks_have_no_padding_but_the_last():
    batches = list(streams(bptt=100).epoch())
    assert [batch.lengths is None for batch in batches] == [True, True, False]
    assert batches[-1].lengths.tolist() == [50] * 4
    assert {batch.inputs.shape for batch in batches} == {(4, 100)}
    assert {float(batch.rate) for batch in batches} == {1.0}


def test_variable_chunks_are_about_bptt_or_half_of_it_in_few_shapes_with_rates_in_proportion():
    made = streams(200_000, seed=0, n_bounds=4)
    chunks = made.chunks()
    steps = np.array([chunk.steps for chunk in chunks])
    assert len({chunk.padded for chunk in chunks}) <= 4
    assert all(chunk.padded >= chunk.steps for chunk in chunks)
    assert (steps.min() >= SHORTEST) & (steps.max() <= 70 + FARTHEST)
    assert 0.02 < (steps < 52).mean() < 0.09
    assert abs(np.median(steps) - 70) < 2
    assert 4 < steps[steps > 52].std() < 6
    for chunk in chunks[:3]:
        assert made.read(chunk).rate == np.float32(chunk.steps / 70)


def test_chunks_depend_on_the_seed_and_the_epoch_alone():
    def chunks(seed, epoch):
        return streams(5000, seed=seed).chunks(epoch)

    assert chunks(1, 2) == chunks(1, 2)
    assert chunks(1, 2) != chunks(1, 3)
    assert chunks(1, 2) != chunks(2, 2)


@pytest.mark.parametrize("start", [0, 3])
def test_a_feed_has_the_same_batches_from_any_one_on(start):
    made = streams(bptt=30, seed=0)
    fed = list(StreamFeed(made).epoch(1, start))
    for one, batch in zip(fed, list(made.epoch(1))[start:], strict=True):
        assert one.examples == batch.weights.sum()
        for mine, theirs in zip(one.batch, batch, strict=True):
            assert np.array_equal(mine, theirs)


def test_fewer_tokens_than_streams_are_refused():
    with pytest.raises(
        ValueError, match=r"^batch_size, and eval_batch_size in .*at most the 5 tokens of.* got 8"
    ):
        streams(5, 8)
