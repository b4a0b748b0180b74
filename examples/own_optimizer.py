"""An optimiser of your own, in a file of your own: Lion (Chen et al. 2023, arXiv 2302.06675).

lru train --plugins examples/own_optimizer.py --optimizer lion --b2 0.98 --lr_base 3e-4 \
    --dataset adding-classification --model lru --n_layers 2 --d_model 32 --d_hidden 32 --epochs 5
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from lru.training.optimizer import OPTIMIZERS, Optimizer, by_group


@OPTIMIZERS.register("lion")
@dataclass(frozen=True)
class Lion(Optimizer):
    """Steps of one size by the sign of the momentum; recurrent parameters slower, not decayed."""

    b1: float = 0.9
    """Share of the momentum in the direction of an update."""
    b2: float = 0.99
    """Share of the momentum that is kept after an update."""
    lr_factor: float = 0.25
    """Learning rate of the recurrent parameters, as a multiple."""
    weight_decay: float = 0.1
    """Decoupled weight decay of the other parameters."""

    def __post_init__(self):
        """Check the ranges.

        Raises:
            ValueError: if a value is out of range.
        """
        for name in ("b1", "b2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        for name in ("lr_factor", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")

    def build(self, rate: optax.Schedule) -> optax.GradientTransformation:
        """See `Optimizer.build`."""

        def slower(count: ArrayLike) -> jax.Array:
            return self.lr_factor * jnp.asarray(rate(count))

        return by_group(
            optax.lion(rate, self.b1, self.b2, weight_decay=self.weight_decay),
            optax.lion(slower, self.b1, self.b2, weight_decay=0.0),
        )
