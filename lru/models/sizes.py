"""Sizes of a network, from its shapes alone: nothing is drawn."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from lru.models.body import Body


class Sizes(NamedTuple):
    """Sizes of a network.

    Attributes:
        n_parameters: number of real parameters.
        state_size: real numbers that its bodies pass from one step of a row to the next, of which a
            complex number is two; 0 of a network without a body.
    """

    n_parameters: int
    state_size: int


def sizes(build: Callable[[], nnx.Module]) -> Sizes:
    """The sizes of the network that a function builds."""

    def parts() -> tuple:
        model = build()
        bodies = [module for _, module in nnx.iter_modules(model) if isinstance(module, Body)]
        return nnx.state(model, nnx.Param), [body.initial_state(1) for body in bodies]

    parameters, states = map(jax.tree.leaves, jax.eval_shape(parts))
    numbers = [leaf for leaf in states if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return Sizes(
        sum(leaf.size for leaf in parameters),
        sum(leaf.size * (2 if jnp.iscomplexobj(leaf) else 1) for leaf in numbers),
    )
