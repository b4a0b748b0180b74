"""AdamW with a slower, undecayed recurrent group; warm-up and cosine.

The groups follow the variables' types: every `RecurrentParam` trains at `lr_factor` times the
rate and without weight decay (LRU, arXiv 2303.06349, appendix B).
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from lru.layers import RecurrentParam
from lru.training.averaging import average_iterates
from lru.training.config import TrainConfig


def make_schedule(config: TrainConfig, steps_per_epoch: int, total_steps: int) -> optax.Schedule:
    """Learning rate of each update, counted from 0.

    Linear from `lr_min` to `lr_base` over the warm-up, then a half cosine that is at `lr_min` at
    the last update, `total_steps - 1`. A run shorter than its warm-up stays on the ramp.
    """
    warmup = config.warmup_end * steps_per_epoch
    ramp = optax.linear_schedule(config.lr_min, config.lr_base, warmup)
    if not config.cosine_anneal:
        after = optax.constant_schedule(config.lr_base)
    else:
        span = max(total_steps - 1 - warmup, 1)
        after = optax.cosine_decay_schedule(
            config.lr_base, span, alpha=config.lr_min / config.lr_base if config.lr_base else 0.0
        )
    return optax.join_schedules([ramp, after], [warmup]) if warmup else after


def make_optimizer(
    config: TrainConfig, schedule: optax.Schedule
) -> optax.GradientTransformationExtraArgs:
    """The transformation from gradients to updates, over an `nnx.State` of parameters."""

    def groups(params: nnx.State) -> nnx.State:
        return jax.tree.map(
            lambda variable: "recurrent" if isinstance(variable, RecurrentParam) else "regular",
            params,
            is_leaf=lambda leaf: isinstance(leaf, nnx.Variable),
        )

    optimizer = optax.partition(
        {
            "regular": optax.adamw(schedule, weight_decay=config.weight_decay),
            "recurrent": optax.adam(lambda count: config.lr_factor * jnp.asarray(schedule(count))),
        },
        groups,
    )
    # Both have the same state, so that a run can be continued with and without clipping.
    clip = (
        optax.identity()
        if config.clip_norm is None
        else optax.clip_by_global_norm(config.clip_norm)
    )
    # Last, so that the rest of the state has the same names with and without it.
    averaging = [average_iterates(config.average_from == 0)] if config.averages else []
    return optax.chain(clip, optimizer, *averaging)
