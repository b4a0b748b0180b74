"""Classification of sequences, or of their steps: softmax cross-entropy and accuracy."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from lru.batches import Batch, Source
from lru.dataloaders import Card
from lru.models import Classifier, ModelConfig
from lru.models.config import one_of
from lru.tasks.base import TASKS, Outcome, Task
from lru.tasks.findings import ConfusionMatrix, Findings
from lru.tasks.metrics import Mean

MOST_CLASSES = 256
"""Classes up to which an evaluation counts which is taken for which."""

Pooling = Literal["auto", "mean", "last", "none"]


@dataclass(frozen=True)
class ClassificationOptions:
    """Options of classification."""

    pooling: Pooling = "auto"
    """Pooling over time: mean, last, or none for one prediction a step; auto fits the data."""
    one_hot: bool = False
    """Read tokens as one-hot vectors, padded to d_model, instead of a trained embedding."""

    def __post_init__(self):
        """Check the values.

        Raises:
            ValueError: if there is no such pooling.
        """
        one_of("pooling", self.pooling, Pooling)


class Graded(NamedTuple):
    """Predictions of a batch, one a row or one a step, beside what is right.

    Attributes:
        labels: classes; 0 where there is none.
        predicted: the class of the largest score.
        correct: whether that is the right one.
        labelled: whether there is a class to predict.
        finite: whether all scores are numbers.
    """

    labels: Int[Array, "B *T"]
    predicted: Int[Array, "B *T"]
    correct: Bool[Array, "B *T"]
    labelled: Bool[Array, "B *T"]
    finite: Bool[Array, "B *T"]


@TASKS.register("classification")
class Classification(Task):
    """One class for each sequence, or for each step with a label of at least 0.

    Attributes:
        kinds: of data that it learns from.
        targets: that it predicts.
        preferred_pooling: over the steps that `auto` means where there is one label a sequence.
        pooling: of the network: none for `auto` where there is one label a step.
    """

    Options = ClassificationOptions
    kinds: tuple[str, ...] = ("tokens", "values")
    targets: tuple[str, ...] = ("class", "class_per_step")
    preferred_pooling: ClassVar[Pooling] = "mean"
    metrics = {"accuracy": Mean}  # noqa: RUF012
    objective = "accuracy"
    higher_is_better = True

    def __init__(
        self, card: Card, model: ModelConfig, options: ClassificationOptions | None = None
    ):
        """Join a data set and a network; see `Task`.

        Raises:
            ValueError: if the kind of data does not fit the task, or the pooling the labels.
        """
        super().__init__(card, model, options)
        for what, allowed in (("kind", self.kinds), ("targets", self.targets)):
            if getattr(card, what) not in allowed:
                raise ValueError(
                    f"{what} of data must be {' or '.join(allowed)} for this task, but that of "
                    f"{card.name} is {getattr(card, what)}"
                )
        per_step = card.targets.endswith("_per_step")
        pooling = self.options.pooling
        if pooling == "auto":
            pooling = "none" if per_step else self.preferred_pooling
        if per_step != (pooling == "none"):
            wanted = "none" if per_step else "mean or last"
            raise ValueError(
                f"pooling must be {wanted} for {card.name}, whose labels are one a "
                f"{'step' if per_step else 'sequence'}, got {pooling!r}"
            )
        self.pooling = pooling
        if 1 < card.n_classes <= MOST_CLASSES:
            self.counts = {"confusion": (card.n_classes, card.n_classes)}

    @classmethod
    def suits(cls, card: Card) -> bool:
        """See `Task.suits`."""
        return card.kind in cls.kinds and card.targets in cls.targets

    @property
    def n_outputs(self) -> int:
        """Number of outputs of the network."""
        return self.card.n_classes

    def build_model(self, rngs: nnx.Rngs) -> nnx.Module:
        """A freshly initialised network."""
        card = self.card
        return Classifier(
            self.model,
            self.n_outputs,
            pooling=self.pooling,
            one_hot=self.options.one_hot,
            vocab_size=card.vocab_size,
            n_features=card.n_features,
            rngs=rngs,
        )

    def context(self) -> dict[str, str]:
        """Share of the most frequent class in each evaluation split: the accuracy of a guess."""
        counts = {name: split["class_counts"] for name, split in self.card.splits.items()}
        return {
            f"{name} majority class": f"{max(found) / sum(found):.4f}"
            for name, found in counts.items()
            if name != "train" and any(found)
        }

    def prepare(self, inputs: jax.Array) -> jax.Array:
        """See `Task.prepare`: tokens as int32; values scaled, normalised by the card."""
        if self.card.kind != "values":
            return inputs.astype(jnp.int32)
        values = inputs.astype(jnp.float32)
        if inputs.dtype == jnp.uint8:
            values = values / 255
        if self.card.mean is not None:
            mean = np.asarray(self.card.mean, np.float32)
            std = np.asarray(self.card.std, np.float32)
            # A feature that never changes in train has no scale to divide by.
            values = (values - mean) / np.where(std > 0, std, 1)
        return values

    def scores(
        self, model: nnx.Module, batch: Batch, key: Key[Array, ""] | None, *, train: bool
    ) -> Float[Array, "B C"] | Float[Array, "B T C"]:
        """Outputs of the network: scores of the classes (logits)."""
        scores, _ = cast(Classifier, model)(
            self.prepare(batch.inputs), lengths=batch.lengths, train=train, key=key
        )
        return scores

    def loss(
        self,
        model: nnx.Module,
        batch: Batch,
        carry: tuple,
        key: Key[Array, ""] | None,
        *,
        train: bool,
    ) -> Outcome:
        """See `Task.loss`: cross-entropy [nats], and accuracy."""
        scores = self.scores(model, batch, key if train else None, train=train)
        labelled = batch.labels >= 0
        labels = jnp.where(labelled, batch.labels, 0)
        weights = labelled * batch.weights.reshape((-1,) + (1,) * (labels.ndim - 1))
        loss = optax.softmax_cross_entropy_with_integer_labels(scores, labels)
        predicted, finite = scores.argmax(axis=-1), jnp.isfinite(scores).all(axis=-1)
        # The largest of scores that are not numbers would be the first: class 0.
        correct = (predicted == labels) & finite
        count = jnp.sum(weights)
        accuracy = Mean(jnp.sum(correct * weights), count)
        graded = Graded(labels, predicted, correct, weights > 0, finite)
        counts = {} if train else self.counted(batch, graded)
        return Outcome(Mean(jnp.sum(loss * weights), count), {"accuracy": accuracy}, carry, counts)

    def counted(self, batch: Batch, graded: Graded) -> dict[str, Array]:
        """The counts of a batch that the task declares, in evaluation."""
        del batch
        if "confusion" not in self.counts:
            return {}
        known = (graded.labelled & graded.finite).astype(jnp.int32)
        none = jnp.zeros(self.counts["confusion"], jnp.int32)
        return {"confusion": none.at[graded.labels, graded.predicted].add(known)}

    def findings(
        self, model: nnx.Module, sources: Mapping[str, Source], counts: Mapping[str, np.ndarray]
    ) -> Findings:
        """See `Task.findings`: which classes are taken for which."""
        del model, sources
        found = counts.get("confusion")
        return {"confusion": ConfusionMatrix(found)} if found is not None and found.any() else {}
