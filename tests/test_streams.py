import itertools

import numpy as np
import pytest

from lru.dataloaders import Ragged
from lru.dataloading import DataConfig
from lru.streams import FARTHEST, SHORTEST, StreamFeed, Streams

BOUNDARY = 7


def text(tokens: int) -> Ragged:
    values = np.random.default_rng(0).integers(50, size=tokens).astype(np.uint8)
    return Ragged(values, np.array([0, tokens]), np.array([-1], np.int32))


def streams(tokens: int = 1000, *, seed: int | None = 0, **config) -> Streams:
    return Streams(text(tokens), DataConfig(**config), BOUNDARY, seed=seed)


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
@pytest.mark.parametrize(("batch_size", "variable"), [(1, False), (8, False), (8, True)])
def test_each_token_is_a_target_once_an_epoch_after_the_one_before_it(tokens, batch_size, variable):
    made = streams(tokens, batch_size=batch_size, bptt=20, variable_bptt=variable)
    for epoch in range(3):
        batches = list(made.epoch(epoch))
        assert len(batches) == made.steps_per_epoch
        targets, inputs = targets_and_inputs(batches)
        expected = text(tokens).values.tolist()
        assert targets == expected
        assert inputs == [BOUNDARY, *expected[:-1]]


def test_a_row_goes_on_where_it_ended_and_says_where_it_starts():
    made = streams(batch_size=4, bptt=30)
    before, *rest = made.epoch()
    assert before.first
    for batch in rest:
        assert not batch.first
        assert batch.inputs[:, 0].tolist() == before.targets[:, -1].tolist()
        before = batch


def test_equal_chunks_have_no_padding_but_the_last():
    batches = list(streams(1000, batch_size=4, bptt=100).epoch())
    assert [batch.lengths is None for batch in batches] == [True, True, False]
    assert batches[-1].lengths.tolist() == [50] * 4
    assert {batch.inputs.shape for batch in batches} == {(4, 100)}
    assert {float(batch.rate) for batch in batches} == {1.0}


def test_variable_chunks_are_about_bptt_or_half_of_it_in_few_shapes_with_rates_in_proportion():
    made = streams(200_000, batch_size=4, bptt=70, variable_bptt=True, n_buckets=4)
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
        return streams(5000, seed=seed, batch_size=4, variable_bptt=True).chunks(epoch)

    assert chunks(1, 2) == chunks(1, 2)
    assert chunks(1, 2) != chunks(1, 3)
    assert chunks(1, 2) != chunks(2, 2)


def test_evaluation_has_its_own_streams_and_equal_lengths():
    made = streams(1000, seed=None, batch_size=4, eval_batch_size=2, variable_bptt=True, bptt=50)
    assert [chunk.steps for chunk in made.chunks()] == [50] * 10
    assert next(made.epoch()).inputs.shape == (2, 50)


@pytest.mark.parametrize("start", [0, 3])
def test_a_feed_has_the_same_batches_from_any_one_on(start):
    made = streams(batch_size=4, bptt=30, variable_bptt=True)
    fed = list(StreamFeed(made).epoch(1, start))
    for one, batch in zip(fed, list(made.epoch(1))[start:], strict=True):
        assert one.examples == batch.weights.sum()
        for mine, theirs in zip(one.batch, batch, strict=True):
            assert np.array_equal(mine, theirs)


@pytest.mark.parametrize(("seed", "name"), [(0, "batch_size"), (None, "eval_batch_size")])
def test_fewer_tokens_than_streams_are_refused(seed, name):
    with pytest.raises(
        ValueError, match=f"^{name} must be at most the 5 tokens of the text, got 8"
    ):
        streams(5, seed=seed, batch_size=8, eval_batch_size=8)
