"""Batches: which examples, in which order, padded how, and how they get to the device."""

from lru.batches.feed import Fed, Feed, Series, Source, on_device_by_default, row_axes
from lru.batches.rows import Batch, Batches, DataConfig
from lru.batches.text import StreamFeed, Streams, TextBatch

__all__ = [
    "Batch",
    "Batches",
    "DataConfig",
    "Fed",
    "Feed",
    "Series",
    "Source",
    "StreamFeed",
    "Streams",
    "TextBatch",
    "on_device_by_default",
    "row_axes",
]
