"""Metrics of a batch that add up over batches: means with weights of their own, least and greatest.

`merge` joins two of one kind, so that batches, microbatches and devices weigh right.
"""

from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Mean(NamedTuple):
    """A mean over what was counted.

    Attributes:
        total: the sum of the values.
        weight: the sum of their weights.
    """

    total: Float[Array, ""] | float
    weight: Float[Array, ""] | float

    @classmethod
    def empty(cls) -> "Mean":
        """Of nothing."""
        return cls(jnp.float32(0), jnp.float32(0))

    def merge(self, other: "Mean") -> "Mean":
        """Over both."""
        return Mean(self.total + other.total, self.weight + other.weight)

    @property
    def divisor(self) -> Float[Array, ""]:
        """The weight, or 1 of nothing."""
        return jnp.where(jnp.asarray(self.weight) > 0, self.weight, 1.0)

    def result(self) -> float:
        """The mean; 0 of nothing."""
        return float(self.total) / (float(self.weight) or 1.0)


class Minimum(NamedTuple):
    """The least value."""

    value: Float[Array, ""] | float

    @classmethod
    def empty(cls) -> "Minimum":
        """Of nothing: infinity."""
        return cls(jnp.float32(jnp.inf))

    def merge(self, other: "Minimum") -> "Minimum":
        """Of both."""
        return Minimum(jnp.minimum(self.value, other.value))

    def result(self) -> float:
        """The value."""
        return float(self.value)


class Maximum(NamedTuple):
    """The greatest value."""

    value: Float[Array, ""] | float

    @classmethod
    def empty(cls) -> "Maximum":
        """Of nothing: minus infinity."""
        return cls(jnp.float32(-jnp.inf))

    def merge(self, other: "Maximum") -> "Maximum":
        """Of both."""
        return Maximum(jnp.maximum(self.value, other.value))

    def result(self) -> float:
        """The value."""
        return float(self.value)


Metric = Mean | Minimum | Maximum
Metrics = dict[str, Metric]

Counted = TypeVar("Counted")


def over_axis(metrics: Counted, axis: str | None) -> Counted:
    """A metric, or a tree of them, over all devices along a mapped axis; as it is without one."""
    if axis is None:
        return metrics
    over = {Mean: jax.lax.psum, Minimum: jax.lax.pmin, Maximum: jax.lax.pmax}
    return jax.tree.map(
        lambda metric: over[type(metric)](metric, axis),
        metrics,
        is_leaf=lambda tree: type(tree) in over,
    )


def merged(before: Metrics, batch: Metrics) -> Metrics:
    """Metrics by name, of what came before and of a batch.

    Raises:
        ValueError: if the batch has others than those declared.
    """
    if before.keys() != batch.keys() or any(type(before[k]) is not type(batch[k]) for k in before):
        raise ValueError(
            f"metrics must be those that the task declares, {_kinds(before)}; got {_kinds(batch)}"
        )

    def joined(old: Any, new: Metric) -> Metric:
        # In the type of the sums: a batch in half precision would make them half as wide.
        return jax.tree.map(lambda x, like: x.astype(like.dtype), old.merge(new), old)

    return {name: joined(metric, batch[name]) for name, metric in before.items()}


def _kinds(metrics: Any) -> str:
    return ", ".join(f"{name} ({type(metric).__name__})" for name, metric in metrics.items())
