"""Classification that also tells how accuracy depends on how much was read."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array

from lru.batches import Batch, Source
from lru.dataloaders import Card
from lru.models import ModelConfig
from lru.tasks.base import TASKS
from lru.tasks.classification import Classification, ClassificationOptions, Graded, Pooling
from lru.tasks.findings import Curves, Findings, Table

MOST_BINS = 64
"""Ranges of lengths that are counted, at most."""


@TASKS.register("classification_by_length")
class ClassificationByLength(Classification):
    """Classification from the last step, with the accuracy of each length.

    The length is that of the row where there is one label a row, else the number of steps up to the
    label.

    Attributes:
        per_bin: lengths of a range that are counted together.
    """

    preferred_pooling: ClassVar[Pooling] = "last"

    def __init__(
        self, card: Card, model: ModelConfig, options: ClassificationOptions | None = None
    ):
        """Join a data set and a network; see `Classification`."""
        super().__init__(card, model, options)
        self.per_bin = -(-card.max_length // MOST_BINS)
        # Right ones and all, of rows with 0 to max_length steps.
        bins = card.max_length // self.per_bin + 1
        self.counts = MappingProxyType({**self.counts, "by_length": (2, bins)})

    def counted(self, batch: Batch, graded: Graded) -> dict[str, Array]:
        """See `Classification.counted`."""
        if graded.labels.ndim == 2:
            lengths = 1 + jnp.arange(graded.labels.shape[1])
        else:
            lengths = batch.inputs.shape[1] if batch.lengths is None else batch.lengths
        bins = jnp.broadcast_to(lengths // self.per_bin, graded.labels.shape)
        right = graded.labelled & graded.correct
        none = jnp.zeros(self.counts["by_length"], jnp.int32)
        found = none.at[0, bins].add(right.astype(jnp.int32))
        found = found.at[1, bins].add(graded.labelled.astype(jnp.int32))
        return {**super().counted(batch, graded), "by_length": found}

    def findings(
        self, model: nnx.Module, sources: Mapping[str, Source], counts: Mapping[str, np.ndarray]
    ) -> Findings:
        """See `Task.findings`: accuracy by length, on the split that selects."""
        right, total = counts["by_length"]
        (bins,) = total.nonzero()
        lengths, accuracy = bins * self.per_bin, right[bins] / total[bins]
        label = "length" if self.per_bin == 1 else f"length, {self.per_bin} from"
        columns = (column.tolist() for column in (lengths, total[bins], accuracy))
        rows = list(zip(*columns, strict=True))
        curve = {"accuracy": (lengths, accuracy)}
        return {
            **super().findings(model, sources, counts),
            "by_length": Table((label, "labels", "accuracy"), rows),
            "accuracy_by_length": Curves(curve, label, "accuracy", y_limits=(0.0, 1.0)),
        }
