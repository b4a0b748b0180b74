"""NT-ASGD: from a trigger on, evaluate the mean of the iterates (Merity et al. 2017).

    mean_K = (w_T + ... + w_K) / (K - T + 1)

with T the update at which validation stopped improving: arXiv 1708.02182, algorithm 1. Training
goes on from the iterates themselves, so there is nothing to swap back. Fine-tuning starts from the
mean of another run, with T = 0.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class AveragingState(NamedTuple):
    """The mean of the iterates before the present one.

    Attributes:
        averaging: whether the trigger has come.
        averaged_iterates: how many have been averaged.
        mean_of_iterates: their mean; without meaning if there are none.
    """

    averaging: jax.Array
    averaged_iterates: jax.Array
    mean_of_iterates: optax.Params


def average_iterates(
    from_start: bool = False, least_weight: float = 0.0
) -> optax.GradientTransformation:
    """A link of a chain that passes updates through and averages the parameters they start from.

    What becomes of the updates after it is therefore of no account, nor is its place in the chain.

    Args:
        from_start: average from the first update on; else from `begin_averaging` on.
        least_weight: of the last iterate: what is more than its share of a mean makes the mean an
            exponential one.
    """

    def init(params: optax.Params) -> AveragingState:
        return AveragingState(
            jnp.asarray(from_start), jnp.int32(0), jax.tree.map(jnp.zeros_like, params)
        )

    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None
    ) -> tuple[optax.Updates, AveragingState]:
        if params is None:
            raise ValueError("params must be given to average_iterates, got None")
        count = state.averaged_iterates + state.averaging
        mean = _include(params, state.mean_of_iterates, count, least_weight)
        return updates, AveragingState(state.averaging, count, mean)

    return optax.GradientTransformation(init, update)


def begin_averaging(
    opt_state: optax.OptState, where: jax.typing.ArrayLike = True
) -> optax.OptState:
    """Pull the trigger; the present parameters are the first to be averaged.

    Args:
        opt_state: of the optimiser.
        where: whether to, of each lane.

    Raises:
        ValueError: if the state is not of an optimiser with `average_iterates` in its chain.
    """
    state = _find(opt_state)
    if state is None:
        raise ValueError("opt_state must be that of a chain with average_iterates, but has no mean")
    return optax.tree.set(opt_state, averaging=state.averaging | where)


def averaged_params(opt_state: optax.OptState, params: Any, least_weight: float = 0.0) -> Any:
    """Parameters to evaluate: the mean of the iterates, the present one included.

    Before the trigger, right after it, and without `average_iterates` in the chain, these are the
    present parameters.

    Args:
        opt_state: of the optimiser.
        params: the present parameters.
        least_weight: see `average_iterates`.
    """
    state = _find(opt_state)
    if state is None:
        return params
    count = state.averaged_iterates + 1
    return _include(params, state.mean_of_iterates, count, least_weight)


def end_averaging(
    opt_state: optax.OptState, params: Any, least_weight: float = 0.0
) -> tuple[optax.OptState, Any]:
    """A state as before the trigger, and what `averaged_params` gives in place of parameters."""
    state, mean = _find(opt_state), averaged_params(opt_state, params, least_weight)
    if state is None:
        return opt_state, mean
    zeros = {name: jnp.zeros_like(getattr(state, name)) for name in AveragingState._fields[:2]}
    return optax.tree.set(opt_state, **zeros), mean


def stopped_improving(losses: Sequence[float], window: int) -> bool:
    """The trigger: whether the last loss exceeds the best of those more than `window` before it.

    Args:
        losses: of all validations so far, lower is better.
        window: validations that are given time to improve; more ride out more noise.

    Raises:
        ValueError: if the window is less than 1.
    """
    if window < 1:
        raise ValueError(f"window must be at least 1, got {window}")
    earlier = losses[:-1]
    return len(earlier) > window and losses[-1] > min(earlier[:-window])


def _include(
    params: optax.Params, mean: optax.Params, count: jax.Array, least_weight: float
) -> optax.Params:
    """The mean of `count` iterates, of which `params` is the last, from that of the others."""
    weight = jnp.maximum(1 / jnp.maximum(count, 1), least_weight)
    return optax.incremental_update(params, mean, weight)


def _find(opt_state: optax.OptState) -> Any:
    return optax.tree.get(opt_state, AveragingState.__name__)
