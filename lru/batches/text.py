"""Batches of a text: parallel streams, each a contiguous part, read on from batch to batch.

A text of N tokens is cut into B streams of ceil(N / B) tokens, and every epoch cuts time into
chunks: batch k has chunk k of all streams, so that the state after it is where batch k + 1 starts
(truncated back-propagation through time). Each token is a target once an epoch, its input being the
token before it. The chunks of an epoch are a pure function of the seed and the epoch.

Chunks of variable length are those of AWD-LSTM (Merity et al. 2017, arXiv 1708.02182, section 4.1):
mostly about `bptt` tokens, sometimes about half as many, with a rate in proportion.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64

from lru.batches.feed import Fed, Source
from lru.batches.plan import bucket_bounds, read_ahead
from lru.dataloaders import Ragged
from lru.devices import Devices, rows_first

SHARE_OF_WHOLE = 0.95
"""Probability of a chunk of about `bptt` tokens; the others have about half as many."""
DEVIATION = 5.0
"""Standard deviation of the length of a chunk."""
FARTHEST = 15
"""A chunk is at most so much longer or shorter than what it is about."""
SHORTEST = 5

_DRAWS_FOR_BOUNDS = 4096


class TextBatch(NamedTuple):
    """One chunk of every stream, on the host or the device.

    Attributes:
        inputs: token ids [B, T], in their stored type.
        targets: the token after each [B, T].
        weights: 1 for a target, 0 for padding [B, T].
        lengths: valid steps of each row [B]; None if the chunk has no padding. So each padded
            length is one program to compile, and one more if the last chunk is shorter than equal
            ones.
        first: whether the streams start here, with a fresh state.
        rate: factor on the learning rate.
    """

    inputs: Any
    targets: Any
    weights: Any
    lengths: Any
    first: Any
    rate: Any


class Chunk(NamedTuple):
    """Place of a batch in its streams.

    Attributes:
        start: its first step.
        steps: their number.
        padded: the length to which they are padded.
    """

    start: int
    steps: int
    padded: int


class Streams:
    """The batches of one text.

    Attributes:
        rows: number B of streams.
        bounds: padded lengths, ascending.
        steps_per_epoch: chunks of an epoch.
    """

    def __init__(
        self,
        text: Ragged,
        rows: int,
        bptt: int,
        *,
        boundary: int,
        seed: int | None = None,
        n_bounds: int = 1,
    ):
        """Cut the streams.

        Args:
            text: its lines.
            rows: number B of streams.
            bptt: steps of a chunk, or about so many.
            boundary: the token before the first.
            seed: of the lengths of chunks, which then vary; None for equal ones.
            n_bounds: number of padded lengths, if lengths vary.

        Raises:
            ValueError: if the text has fewer tokens than there are streams.
        """
        self._tokens, self._boundary, self._seed = text.values, boundary, seed
        self.rows = rows
        if len(self._tokens) < self.rows:
            raise ValueError(
                "batch_size, and eval_batch_size in evaluation, must be at most the "
                f"{len(self._tokens)} tokens of the text, got {self.rows}"
            )
        self._bptt, self._varied = bptt, seed is not None
        # A last stream may be short, or even empty: then all its steps are padding.
        self._steps = -(-len(self._tokens) // self.rows)
        if not self._varied:
            self.bounds = np.array([min(bptt, self._steps)])
            self.steps_per_epoch = -(-self._steps // bptt)
            return
        sample = self._draw(np.random.default_rng(0), _DRAWS_FOR_BOUNDS)
        self.bounds = bucket_bounds(sample, n_bounds)
        self.steps_per_epoch = max(
            round(self._steps / sample.mean()), -(-self._steps // int(self.bounds[-1]))
        )

    def description(self) -> str:
        """Phrase that says how much there is to read."""
        return (
            f"{self.steps_per_epoch} of {self.rows} streams an epoch, padded to "
            f"{', '.join(map(str, self.bounds))}"
        )

    def _draw(self, rng: np.random.Generator, count: int) -> Int64[np.ndarray, " count"]:
        """Lengths of chunks."""
        about = np.where(rng.random(count) < SHARE_OF_WHOLE, self._bptt, self._bptt / 2)
        lengths = np.clip(rng.normal(about, DEVIATION), about - FARTHEST, about + FARTHEST)
        return np.maximum(lengths.astype(np.int64), SHORTEST)

    def chunks(self, epoch: int = 0) -> list[Chunk]:
        """The chunks of an epoch; their number is always the same."""
        count, longest = self.steps_per_epoch, int(self.bounds[-1])
        if not self._varied:
            starts = range(0, self._steps, self._bptt)
            return [Chunk(at, min(self._bptt, self._steps - at), longest) for at in starts]
        rng = np.random.default_rng((self._seed or 0, epoch))
        drawn = self._draw(rng, count)
        # Stretched to the steps that there are, so that the last chunks are like the others.
        ends = np.round(np.cumsum(drawn) * (self._steps / drawn.sum())).astype(int)
        chunks, start = [], 0
        for k, end in enumerate(ends.tolist()):
            after = count - 1 - k
            most = min(start + longest, self._steps - after)
            end = min(max(end, start + 1, self._steps - after * longest), most)
            padded = int(self.bounds[np.searchsorted(self.bounds, end - start)])
            chunks.append(Chunk(start, end - start, padded))
            start = end
        return chunks

    def read(self, chunk: Chunk) -> TextBatch:
        """The batch of a chunk, on the host."""
        rows, total = self.rows, len(self._tokens)
        at = np.arange(rows)[:, None] * self._steps + chunk.start + np.arange(chunk.padded)
        inside = np.arange(rows) * self._steps + chunk.start
        ends = np.minimum((np.arange(rows) + 1) * self._steps, total)
        lengths = np.clip(ends - inside, 0, chunk.steps).astype(np.int32)
        valid = np.arange(chunk.padded) < lengths[:, None]
        targets = np.where(valid, self._tokens[np.minimum(at, total - 1)], 0)
        before = self._tokens[np.clip(at - 1, 0, total - 1)]
        before = np.where(at == 0, self._boundary, before)
        stored = self._tokens.dtype
        return TextBatch(
            inputs=np.where(valid, before, 0).astype(stored),
            targets=targets.astype(stored),
            weights=valid.astype(np.float32),
            lengths=None if valid.all() and not self._varied else lengths,
            first=np.bool_(chunk.start == 0),
            rate=np.float32(chunk.steps / self._bptt if self._varied else 1),
        )

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[TextBatch]:
        """The batches of an epoch from batch `start` on, on the host, read ahead."""
        return read_ahead(self.chunks(epoch), self.read, start)


class StreamFeed(Source):
    """Delivers the batches of a text to the device, sent ahead by a thread."""

    def __init__(self, batches: Streams):
        self.rows, self.steps_per_epoch = batches.rows, batches.steps_per_epoch
        self.batches, self._devices = batches, Devices()

    def spread(self, devices: Devices) -> "StreamFeed":
        """See `Source.spread`; every process reads all streams."""
        feed = StreamFeed(self.batches)
        feed._devices = devices
        return feed

    def description(self) -> str:
        """See `Source.description`."""
        return self.batches.description()

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[Fed]:
        """The batches of an epoch from batch `start` on; their examples are the targets."""
        return read_ahead(self.batches.chunks(epoch), self._send, start)

    def _send(self, chunk: Chunk) -> Fed:
        batch = self.batches.read(chunk)
        targets = int(batch.weights.sum())
        return Fed(self._devices.send(batch, rows_first), targets, tokens=targets)
