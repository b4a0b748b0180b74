"""Classification of sequences, or of their steps: softmax cross-entropy and accuracy."""

import dataclasses
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Key

from lru.dataloaders import Card
from lru.dataloading import Batch
from lru.models import Classifier, ModelConfig
from lru.models.config import OF_TEXTS
from lru.tasks.base import TASKS, Sums


@TASKS.register("classification")
class Classification:
    """One class for each sequence, or for each step with a label of at least 0."""

    kinds: tuple[str, ...] = ("tokens", "values")
    metrics: tuple[str, ...] = ("accuracy",)
    objective = "accuracy"
    higher_is_better = True

    def __init__(self, card: Card, config: ModelConfig):
        """Join a data set and a network.

        Args:
            card: of the data set.
            config: of the network; pooling `auto` becomes mean for one label a sequence and none
                for one a step.

        Raises:
            ValueError: if the kind of data does not fit the task, or the pooling the labels, or if
                an option is of texts.
        """
        if card.kind not in self.kinds:
            raise ValueError(
                f"the data of this task must be {' or '.join(self.kinds)}, "
                f"but those of {card.name} are {card.kind}"
            )
        for name, value in config.changed(OF_TEXTS).items():
            raise ValueError(f"{name} is of texts, but {card.name} is none; got {value}")
        per_step = card.targets == "step"
        pooling = config.pooling
        if pooling == "auto":
            pooling = "none" if per_step else "mean"
        if per_step != (pooling == "none"):
            wanted = "none" if per_step else "mean or last"
            raise ValueError(
                f"pooling must be {wanted} for {card.name}, whose labels are one a {card.targets}, "
                f"got {pooling!r}"
            )
        self._card = card
        self._config = dataclasses.replace(config, pooling=pooling)

    def build_model(self, rngs: nnx.Rngs) -> Classifier:
        """A freshly initialised classifier."""
        card = self._card
        return Classifier(
            self._config,
            card.n_classes,
            vocab_size=card.vocab_size,
            n_features=card.n_features,
            rngs=rngs,
        )

    def prepare(self, inputs: jax.Array) -> jax.Array:
        """See `Predicts.prepare`: tokens as int32; values scaled, normalised by the card."""
        if self._card.kind != "values":
            return inputs.astype(jnp.int32)
        values = inputs.astype(jnp.float32)
        if inputs.dtype == jnp.uint8:
            values = values / 255
        if self._card.mean is not None:
            mean = np.asarray(self._card.mean, np.float32)
            std = np.asarray(self._card.std, np.float32)
            # A feature that never changes in train has no scale to divide by.
            values = (values - mean) / np.where(std > 0, std, 1)
        return values

    def _scores(
        self, model: nnx.Module, batch: Batch, rng: Key[Array, ""] | None
    ) -> Float[Array, "B C"] | Float[Array, "B T C"]:
        """Scores of the classes; in training mode if there is an `rng`."""
        scores, _ = cast(Classifier, model)(
            self.prepare(batch.inputs), lengths=batch.lengths, train=rng is not None, key=rng
        )
        return scores

    def loss_and_metrics(
        self, model: nnx.Module, batch: Batch, rng: Key[Array, ""] | None
    ) -> tuple[Float[Array, ""], Float[Array, ""], Sums]:
        """See `Task.loss_and_metrics`; the metric is accuracy."""
        scores = self._scores(model, batch, rng)
        labelled = batch.labels >= 0
        labels = jnp.where(labelled, batch.labels, 0)
        weights = labelled * batch.weights.reshape((-1,) + (1,) * (labels.ndim - 1))
        loss = optax.softmax_cross_entropy_with_integer_labels(scores, labels)
        # The largest of scores that are not numbers would be the first: class 0.
        correct = (scores.argmax(axis=-1) == labels) & jnp.isfinite(scores).all(axis=-1)
        return (
            jnp.sum(loss * weights),
            jnp.sum(weights),
            {"accuracy": jnp.sum(correct * weights)},
        )
