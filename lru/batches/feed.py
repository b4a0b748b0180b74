"""Batches on the device: sent ahead of their use, or gathered from a split that lives there.

Both ways give the same batches, value for value, of the plan of `lru.batches.plan`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import takewhile
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Array, Int

from lru.batches.plan import PADDING_ROW, Selection, read_ahead
from lru.batches.rows import Batch, Batches
from lru.dataloaders import Pairs, Split
from lru.dataloaders.store.arrays import are_of_steps, no_target
from lru.devices import NO_ROWS, Devices, no_rows, rows_first

DEVICE_SHARE = 1 / 8
"""Share of the device's memory that the splits of a run may take without being asked."""

LARGEST_INDEX = 2**31 - 1


class Fed(NamedTuple):
    """One batch for an update, or several for as many.

    Attributes:
        batch: on the device; a `Series` of several.
        examples: number of its rows, in all processes, that are examples; known without waiting for
            the device.
        count: number of batches.
        tokens: number of time steps of its examples, without padding; 0 if nobody counts them.
    """

    batch: Any
    examples: int
    count: int = 1
    tokens: int = 0


class Series:
    """Batches of one shape that the program of the updates makes by itself; a tree of arrays.

    Attributes:
        count: number of batches, a scalar array.
    """

    count: Any

    def batch(self, k: Any) -> Any:
        """Batch number k, which may be traced; anything of the same shape from `count` on."""
        raise NotImplementedError

    def row_axes(self) -> "Series":
        """The axes of the rows of each array, in its place; `NO_ROWS` where it holds for all."""
        raise NotImplementedError


def row_axes(batch: Any) -> Any:
    """The axes of the rows of the arrays of a batch, or of a `Series`; see `lru.devices`."""
    return batch.row_axes() if isinstance(batch, Series) else rows_first(batch)


class Source:
    """The batches of one split, or of what is made on the fly, delivered to the device.

    Attributes:
        rows: number B of rows of a batch.
        steps_per_epoch: batches of an epoch.
        on_device: whether the data lives on the device.
    """

    rows: int
    steps_per_epoch: int
    on_device: bool = False

    def description(self) -> str:
        """Phrase that says how much there is to read."""
        return f"{self.steps_per_epoch} of {self.rows} an epoch"

    def spread(self, devices: Devices) -> "Source":
        """The same batches, delivered to several devices.

        What a source that knows nothing of it delivers, whole batches on one device, is moved on.
        """
        del devices
        return self

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[Fed]:
        """The batches of an epoch from batch `start` on; the same whenever they are asked for."""
        raise NotImplementedError

    def series(
        self, epoch: int = 0, start: int = 0, *, most: int, wanted: Callable[[], int]
    ) -> Iterator[Fed]:
        """The same batches, for programs that take several at once; one by one if not on_device.

        Args:
            epoch: counted from 0.
            start: number of the first batch.
            most: batches of a `Series` at most.
            wanted: tells, when it is asked for the next ones, how many are wanted at most.
        """
        del most, wanted
        return self.epoch(epoch, start)


def on_device_by_default(splits: Mapping[str, Split]) -> bool:
    """True if the device has a memory of its own in which these splits take little room."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    needed = sum(
        leaf.nbytes for split in splits.values() for leaf in jax.tree.leaves(_arrays_of(split))
    )
    return needed <= DEVICE_SHARE * statistics.get("bytes_limit", 0)


class Feed(Source):
    """Delivers the batches of one split to the device."""

    def __init__(self, batches: Batches, *, on_device: bool):
        """Prepare to deliver.

        Args:
            batches: of the split.
            on_device: put the whole split on the device, where each batch is a gather by row
                numbers; else the batches are read on the host and sent ahead by a thread.

        Raises:
            ValueError: if the split is too large for the device to count.
        """
        self.batches, self.on_device = batches, on_device
        self.rows, self.steps_per_epoch = batches.batch_size, batches.steps_per_epoch
        self._devices = Devices()
        if on_device:
            _check_size(batches.split)

    @cached_property
    def _arrays(self) -> dict[str, Any]:
        """The arrays of the split on the device."""
        return self._devices.send(_arrays_of(self.batches.split), no_rows)

    def spread(self, devices: Devices) -> "Feed":
        """See `Source.spread`."""
        if devices.mesh is None:
            return self
        feed = Feed(self.batches.shared(devices.share), on_device=self.on_device)
        feed._devices = devices
        return feed

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[Fed]:
        """The batches of an epoch from batch `start` on."""
        if not self.on_device:
            return read_ahead(self.batches.selections(epoch), self._send, start)
        alone, sharding = self._gathered(epoch, start, 1, lambda: 1), self._devices.of_rows
        return (fed._replace(batch=_first(fed.batch, sharding)) for fed in alone)

    def series(
        self, epoch: int = 0, start: int = 0, *, most: int, wanted: Callable[[], int]
    ) -> Iterator[Fed]:
        """See `Source.series`."""
        if not self.on_device or most == 1:
            return self.epoch(epoch, start)
        return self._gathered(epoch, start, min(most, self.steps_per_epoch), wanted)

    def description(self) -> str:
        """See `Source.description`."""
        return self.batches.description()

    def _send(self, selection: Selection) -> Fed:
        examples, tokens = self.batches.count([selection])
        batch = self._devices.send(self.batches.read(selection), rows_first, self.batches.shard)
        return Fed(batch, examples, tokens=tokens)

    def _gathered(
        self, epoch: int, start: int, most: int, wanted: Callable[[], int]
    ) -> Iterator[Fed]:
        selections = self.batches.selections(epoch)
        while start < len(selections):
            end = min(start + min(wanted(), most), len(selections))
            ahead = map(selections.__getitem__, range(start, end))
            first = next(ahead)
            alike = [first, *takewhile(first.alike, ahead)]
            rows = np.full((most, len(first.rows)), PADDING_ROW, np.int32)
            rows[: len(alike)] = [selection.rows for selection in alike]
            series = Gathered(self._arrays, rows, np.int32(len(alike)), first.length, first.full)
            series = self._devices.put(series, row_axes, self.batches.shard)
            examples, tokens = self.batches.count(alike)
            yield Fed(series, examples, len(alike), tokens)
            start += len(alike)


def _arrays_of(split: Split) -> dict[str, Any]:
    """The arrays of a split by name."""
    if isinstance(split, Pairs):
        return {"first": vars(split.first), "second": vars(split.second)}
    return vars(split)


def _check_size(split: Split) -> None:
    longest = max(len(array) for array in jax.tree.leaves(_arrays_of(split)))
    if longest > LARGEST_INDEX:
        raise ValueError(
            f"on_device must be False for splits of more than {LARGEST_INDEX:,} steps, "
            f"got one of {longest:,}"
        )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Gathered(Series):
    """Batches that are gathered from a split on the device.

    Attributes:
        arrays: of the split, by name.
        rows: indices of the examples of every batch [K, B]; see `Selection`.
        count: number of batches.
        length: see `Selection`.
        full: see `Selection`.
    """

    arrays: Any
    rows: Any
    count: Any
    length: int = field(metadata={"static": True})
    full: bool = field(metadata={"static": True})

    def row_axes(self) -> "Gathered":
        """See `Series.row_axes`."""
        return replace(self, arrays=no_rows(self.arrays), rows=1, count=NO_ROWS)

    def batch(self, k: Any) -> Batch:
        """See `Series.batch`; the counterpart of `Batches.read`."""
        rows, length = self.rows[k], self.length
        inputs, lengths = _padded(self.arrays, rows, length)
        labels = self.arrays.get("first", self.arrays)["labels"][rows]
        if are_of_steps(labels):
            labels = labels[:, :length]
            beyond = ((0, 0), (0, length - labels.shape[1]), (0, 0))[: labels.ndim]
            labels = jnp.pad(labels, beyond, constant_values=no_target(labels))
        example = rows != PADDING_ROW

        def fill(array: Array) -> Array:
            return jnp.where(example.reshape(-1, *(1,) * (array.ndim - 1)), array, 0)

        return Batch(
            inputs=fill(inputs),
            labels=fill(labels),
            weights=example.astype(jnp.float32),
            lengths=None if self.full else fill(lengths),
        )


@partial(jax.jit, static_argnums=1)
def _first(series: Series, sharding: NamedSharding | None) -> Any:
    batch = series.batch(0)
    return batch if sharding is None else jax.lax.with_sharding_constraint(batch, sharding)


def _padded(arrays: dict[str, Any], rows: Int[Array, " B"], length: int) -> tuple[Array, Array]:
    """The rows padded to `length` steps, and their lengths."""
    if "first" in arrays:
        documents = [_padded(arrays[name], rows, length) for name in ("first", "second")]
        inputs, lengths = zip(*documents, strict=True)
        return jnp.stack(inputs, axis=1), jnp.stack(lengths, axis=1)
    if "offsets" in arrays:
        first, end = arrays["offsets"][rows], arrays["offsets"][rows + 1]
        lengths, steps = end - first, jnp.arange(length)
        places = jnp.where(steps < lengths[:, None], first[:, None] + steps, len(arrays["values"]))
        return arrays["values"].at[places].get(mode="fill", fill_value=0), lengths
    inputs = arrays["inputs"][rows]
    lengths = jnp.full(len(rows), inputs.shape[1], jnp.int32)
    return jnp.pad(inputs, ((0, 0), (0, length - inputs.shape[1]), (0, 0))), lengths
