"""Regression of sequences, or of their steps: squared error of standardised values.

The network predicts values standardised by their mean and deviation over train; the metrics are in
the units of the data.
"""

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Key

from lru.dataloading import Batch
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
        """See `Task.loss`: half the squared error of standardised values, summed over the K.

        The metrics are the mean squared and the mean absolute error of a value.
        """
        outputs = self.scores(model, batch, key if train else None, train=train)
        mean, std = (
            np.asarray(x, np.float32) for x in (self.card.target_mean, self.card.target_std)
        )
        # A value that never changes in train has no scale to divide by.
        scale = np.where(std > 0, std, 1)
        given = ~jnp.isnan(batch.labels).any(axis=-1)
        weights = given * batch.weights.reshape((-1,) + (1,) * (given.ndim - 1))
        standardised = (jnp.where(given[..., None], batch.labels, mean) - mean) / scale
        # By selection: outputs at padding carry no meaning and may not be numbers.
        error = jnp.where(weights[..., None] > 0, outputs - standardised, 0)
        count, values = jnp.sum(weights), jnp.sum(weights) * self.n_outputs
        metrics: Metrics = {
            "mse": Mean(jnp.sum((error * scale) ** 2), values),
            "mae": Mean(jnp.sum(jnp.abs(error * scale)), values),
        }
        return Outcome(Mean(jnp.sum(error**2) / 2, count), metrics, carry)
