"""Batches on the device: the same ones, sent ahead or gathered there."""

import time

import jax
import numpy as np
import pytest

from lru.batches import Batches, DataConfig, Feed, on_device_by_default
from lru.batches import feed as feed_module
from lru.dataloaders import Dense, Pairs, Ragged

N = 11
rng = np.random.default_rng(0)


def ragged(longest=9, per_step=False, n_targets=None, dtype=np.uint8, features=()):
    lengths = rng.integers(0, longest + 1, N)
    shape = (N, lengths.max()) if per_step else (N,)
    labels = rng.integers(-1, 3, shape).astype(np.int32)
    if n_targets is not None:
        labels = rng.normal(size=(*shape, n_targets)).astype(np.float32)
    values = rng.integers(1, 200, (lengths.sum(), *features)).astype(dtype)
    return Ragged(values, np.concatenate([[0], np.cumsum(lengths)]), labels)


def pairs():
    first, second = ragged(4), ragged(9)
    return Pairs(first, Ragged(second.values, second.offsets, first.labels))


def dense(dtype, per_step=False):
    labels = rng.integers(3, size=(N, 5) if per_step else N).astype(np.int32)
    return Dense(rng.integers(0, 256, (N, 5, 2)).astype(dtype), labels)


SPLITS = {
    "bytes": dense(np.uint8),
    "floats with a label a step": dense(np.float32, per_step=True),
    "tokens": ragged(),
    "tokens with a label a step": ragged(per_step=True),
    "tokens with values a row": ragged(n_targets=2),
    "tokens with values a step": ragged(per_step=True, n_targets=2),
    "bytes of several lengths": ragged(features=(3,)),
    "floats of several lengths": ragged(features=(2,), dtype=np.float32, per_step=True),
    "pairs": pairs(),
}


def assert_same(batch, host):
    for name, on_device, on_host in zip(host._fields, batch, host, strict=True):
        assert (on_device is None) == (on_host is None), name
        if on_host is not None:
            assert isinstance(on_device, jax.Array), name
            assert on_device.dtype == on_host.dtype, name
            np.testing.assert_array_equal(on_device, on_host, err_msg=name)


def valid_steps(batch):
    return np.prod(batch.inputs.shape[:2]) if batch.lengths is None else batch.lengths.sum()


@pytest.mark.parametrize("on_device", [False, True], ids=["sent", "gathered"])
@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS)
def test_the_device_gets_the_batches_of_the_host(split, on_device):
    batches = Batches(split, DataConfig(batch_size=4, n_buckets=2), seed=1)
    feed = Feed(batches, on_device=on_device)
    for epoch, start in ((0, 0), (3, 1)):
        fed = list(feed.epoch(epoch, start))
        host = list(batches.epoch(epoch, start))
        assert len(fed) == len(host) == 3 - start
        for (batch, examples, count, tokens), expected in zip(fed, host, strict=True):
            assert_same(batch, expected)
            assert (examples, count) == (expected.weights.sum(), 1)
            assert tokens == valid_steps(expected)


@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS)
def test_series_are_the_batches_of_one_shape_that_follow_as_far_as_wanted(split):
    batches = Batches(split, DataConfig(batch_size=2, n_buckets=2), seed=1)
    host, at, wanted = list(batches.epoch(3, 1)), 0, 1
    made = jax.jit(lambda series, k: series.batch(k))
    series = Feed(batches, on_device=True).series(3, 1, most=4, wanted=lambda: wanted)
    for fed in series:
        allowed = host[at : at + min(wanted, 4)]
        shapes = [(batch.inputs.shape, batch.lengths is None) for batch in allowed]
        alike = [shape == shapes[0] for shape in shapes]
        expected = allowed[: [*alike, False].index(False)]
        assert fed.count == fed.batch.count == len(expected)
        assert fed.examples == sum(batch.weights.sum() for batch in expected)
        assert fed.tokens == sum(map(valid_steps, expected))
        for k, batch in enumerate(expected):
            assert_same(made(fed.batch, k), batch)
        at, wanted = at + fed.count, 9
    assert at == len(host)


def test_processes_gather_their_shares_of_each_batch():
    config = DataConfig(batch_size=4, n_buckets=2)
    whole = Batches(SPLITS["tokens"], config, seed=1).epoch()
    feeds = [
        Feed(Batches(SPLITS["tokens"], config, seed=1).shared((i, 2)), on_device=True).epoch()
        for i in (0, 1)
    ]
    for batch, *shares in zip(whole, *feeds, strict=True):
        joined = np.concatenate([share.batch.inputs for share in shares])
        np.testing.assert_array_equal(joined, batch.inputs)
        assert {share.examples for share in shares} == {int(batch.weights.sum())}


def test_batches_are_sent_before_they_are_asked_for(monkeypatch):
    sent = []
    put = jax.device_put
    monkeypatch.setattr(feed_module.jax, "device_put", lambda x: sent.append(x) or put(x))
    feed = Feed(Batches(SPLITS["bytes"], DataConfig(batch_size=4)), on_device=False)
    iterator = feed.epoch()
    next(iterator)
    deadline = time.monotonic() + 30
    while len(sent) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(sent) == 3


class Accelerator:
    def __init__(self, bytes_limit):
        self.bytes_limit = bytes_limit

    def memory_stats(self):
        return {"bytes_limit": self.bytes_limit}


def test_small_data_lives_on_an_accelerator_and_large_data_does_not(monkeypatch):
    splits = {"train": SPLITS["bytes"], "val": SPLITS["pairs"]}
    assert not on_device_by_default(splits), "the memory of a CPU is the host's"
    for share, expected in ((0.1, True), (0.2, False)):
        size = N * (5 * 2 + 4) + sum(
            part.values.nbytes + part.offsets.nbytes + part.labels.nbytes
            for part in (splits["val"].first, splits["val"].second)
        )
        monkeypatch.setattr(jax, "local_devices", lambda limit=size / share: [Accelerator(limit)])
        assert on_device_by_default(splits) == expected


def test_more_tokens_than_the_device_counts_are_refused(monkeypatch):
    monkeypatch.setattr(feed_module, "LARGEST_INDEX", 10)
    with pytest.raises(
        ValueError, match="on_device must be False for splits of more than 10 steps"
    ):
        Feed(Batches(SPLITS["tokens"], DataConfig(batch_size=4)), on_device=True)
