"""An optimiser of your own, in a file of your own: Signum (Bernstein et al. 2018).

lru train --plugins examples/own_optimizer.py --optimizer signum --beta 0.95 --lr_base 3e-4 \
    --dataset adding-classification --model lru --n_layers 2 --d_model 32 --d_hidden 32 --epochs 5
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from lru.training.optimizer import OPTIMIZERS, Optimizer, by_group


@OPTIMIZERS.register("signum")
@dataclass(frozen=True)
class Signum(Optimizer):
    """Steps of one size by the sign of the momentum (arXiv 1802.04434, algorithm 2)."""

    beta: float = 0.9
    """Share of the momentum that is kept after an update."""
    lr_factor: float = 0.25
    """Learning rate of the recurrent parameters, as a multiple."""

    def __post_init__(self):
        """Check the ranges.

        Raises:
            ValueError: if a value is out of range.
        """
        if not 0 <= self.beta < 1:
            raise ValueError(f"beta must be in [0, 1), got {self.beta}")
        if not self.lr_factor >= 0:
            raise ValueError(f"lr_factor must not be negative, got {self.lr_factor}")

    def build(self, rate: optax.Schedule) -> optax.GradientTransformation:
        """See `Optimizer.build`."""

        def slower(count: ArrayLike) -> jax.Array:
            return self.lr_factor * jnp.asarray(rate(count))

        return by_group(optax.signum(rate, self.beta), optax.signum(slower, self.beta))
