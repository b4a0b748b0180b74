"""The contract of a task and the registry of tasks."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import jax
from flax import nnx
from jaxtyping import Array, Float, Key

from lru.dataloaders import Card
from lru.dataloading import Batch
from lru.models import ModelConfig
from lru.registry import Registry

Sums = dict[str, jax.Array]


@runtime_checkable
class Task(Protocol):
    """What a run learns.

    Attributes:
        metrics: names of the metrics that are summed.
        objective: the metric that selects the best epoch on the validation split.
        higher_is_better: whether more of it is better.
    """

    metrics: tuple[str, ...]
    objective: str
    higher_is_better: bool

    def __init__(self, card: Card, config: ModelConfig): ...

    def build_model(self, rngs: nnx.Rngs) -> nnx.Module:
        """A freshly initialised model."""
        ...

    def loss_and_metrics(
        self, model: nnx.Module, batch: Batch, rng: Key[Array, ""] | None
    ) -> tuple[Float[Array, ""], Float[Array, ""], Sums]:
        """Sums over the batch, so that batches of any size weigh right.

        Args:
            model: as built by `build_model`; its running statistics are updated in training.
            batch: the examples.
            rng: source of the dropout masks in training; None to evaluate.

        Returns:
            Sum of the losses, sum of the weights, and sums of the metrics by name: each divided
            by the sum of the weights is the mean.
        """
        ...


@runtime_checkable
class Predicts(Protocol):
    """What a task also has if its models answer to inputs alone, whole and step by step.

    Such models have the methods `__call__`, `initial_state` and `step` of `lru.models.Classifier`.
    """

    def prepare(self, inputs: jax.Array) -> jax.Array:
        """What the network reads, from inputs in their stored type: [B, T, ...] or one step."""
        ...


@runtime_checkable
class Carries(Protocol):
    """What a task also has if its batches go on where the one before ended."""

    def initial_carry(self, model: nnx.Module, batch_size: int) -> Any:
        """What the first batch starts from."""
        ...

    def continued(
        self, model: nnx.Module, batch: Any, carry: Any, rng: Key[Array, ""] | None
    ) -> tuple[Float[Array, ""], Float[Array, ""], Sums, Any]:
        """See `Task.loss_and_metrics`; with what the next batch starts from.

        Args:
            model: as built by `build_model`.
            batch: the examples.
            carry: what the batch before left.
            rng: source of the dropout masks in training; None to evaluate.
        """
        ...


@runtime_checkable
class Derives(Protocol):
    """What a task also has if it reports more than means."""

    def derived(self, means: Mapping[str, float], weight: float) -> dict[str, float]:
        """Further metrics, from the means by name and the sum of the weights."""
        ...


TASKS: Registry[type[Task]] = Registry("task")
