"""Regression of sequences, or of their steps: squared error of standardised values.

The network predicts values standardised by their mean and deviation over train; the metrics are in
the units of the data.
"""

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Key

from lru.batches import Batch
from lru.tasks.base import TASKS, Outcome
from lru.tasks.classification import Classification
from lru.tasks.metrics import Mean, Metrics


@TASKS.register("regression")
class Regression(Classification):
    """A vector of real values for each sequence, or for each step that has one."""

    targets: tuple[str, ...] = ("values", "values_per_step")
    metrics = {"mse": Mean, "mae": Mean}  # noqa: RUF012
    objective = "mse"
    higher_is_better = False

    @property
    def n_outputs(self) -> int:
        """Number K of values of a target."""
        return self.card.n_targets

    def loss(
        self,
        model: nnx.Module,
        batch: Batch,
        carry: tuple,
        key: Key[Array, ""] | None,
        *,
        train: bool,
    ) -> Outcome:
        """See `Task.loss`: the squared error of a standardised value.

        The metrics are the mean squared and the mean absolute error in the units of the data.
        """
        outputs = self.scores(model, batch, key if train else None, train=train)
        mean, std = (
            np.asarray(x, np.float32) for x in (self.card.target_mean, self.card.target_std)
        )
        # A value that never changes in train has no scale to divide by.
        scale = np.where(std > 0, std, 1)
        weights = batch.weights.reshape((-1,) + (1,) * (batch.labels.ndim - 1))
        given = ~jnp.isnan(batch.labels) & (weights > 0)
        standardised = (jnp.where(given, batch.labels, mean) - mean) / scale
        # By selection: outputs at padding carry no meaning and may not be numbers.
        error = jnp.where(given, outputs - standardised, 0)
        count = jnp.sum(given, dtype=jnp.float32)
        metrics: Metrics = {
            "mse": Mean(jnp.sum((error * scale) ** 2), count),
            "mae": Mean(jnp.sum(jnp.abs(error * scale)), count),
        }
        return Outcome(Mean(jnp.sum(error**2), count), metrics, carry)
