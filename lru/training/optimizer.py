"""Optimisers with a slower recurrent group; warm-up, then a cosine or steps.

The groups follow the variables' types: every `RecurrentParam` trains at `lr_factor` times the
rate, and by AdamW without weight decay (LRU, arXiv 2303.06349, appendix B).
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from lru.layers import RecurrentParam
from lru.registry import Registry
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
        after = _steps(config, steps_per_epoch)
    else:
        span = max(total_steps - 1 - warmup, 1)
        after = optax.cosine_decay_schedule(
            config.lr_base, span, alpha=config.lr_min / config.lr_base if config.lr_base else 0.0
        )
    return optax.join_schedules([ramp, after], [warmup]) if warmup else after


def _steps(config: TrainConfig, steps_per_epoch: int) -> optax.Schedule:
    """The rate of each epoch after warm-up."""
    drops = [int(epoch) for epoch in config.lr_drops.split(",")] if config.lr_drops else []

    def rate(count: jax.typing.ArrayLike) -> jax.Array:
        epoch = jnp.asarray(count) // steps_per_epoch
        decays = jnp.maximum(epoch + 1 - config.lr_decay_from, 0)
        dropped = jnp.sum(epoch >= jnp.array(drops, jnp.int32))
        return config.lr_base * config.lr_decay**decays * 0.1**dropped

    return rate


Factory = Callable[[TrainConfig, optax.Schedule], optax.GradientTransformation]

OPTIMIZERS: Registry[Factory] = Registry("optimizer")
"""From a configuration and the schedule to the transformation of clipped gradients."""


def _by_group(
    regular: optax.GradientTransformation, recurrent: optax.GradientTransformation
) -> optax.GradientTransformation:
    """Another transformation for recurrent parameters than for regular ones."""

    def groups(params: nnx.State) -> nnx.State:
        return jax.tree.map(
            lambda variable: "recurrent" if isinstance(variable, RecurrentParam) else "regular",
            params,
            is_leaf=lambda leaf: isinstance(leaf, nnx.Variable),
        )

    return optax.partition({"regular": regular, "recurrent": recurrent}, groups)


def _slower(config: TrainConfig, schedule: optax.Schedule) -> optax.Schedule:
    return lambda count: config.lr_factor * jnp.asarray(schedule(count))


def _with_l2(
    config: TrainConfig,
    schedule: optax.Schedule,
    rule: Callable[[optax.Schedule], optax.GradientTransformation],
) -> optax.GradientTransformation:
    """A rule whose recurrent group is slower, after decay of all parameters."""
    descent = _by_group(rule(schedule), rule(_slower(config, schedule)))
    return optax.chain(optax.add_decayed_weights(config.weight_decay), descent)


@OPTIMIZERS.register("adamw")
def _adamw(config: TrainConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    regular = optax.adamw(schedule, weight_decay=config.weight_decay)
    return _by_group(regular, optax.adam(_slower(config, schedule)))


@OPTIMIZERS.register("rmsprop")
def _rmsprop(config: TrainConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Decay 0.9, epsilon 1e-8, as in the QRNN paper (arXiv 1611.01576, section 3.1)."""
    rule = partial(optax.rmsprop, decay=0.9, eps=1e-8, eps_in_sqrt=False)
    return _with_l2(config, schedule, rule)


@OPTIMIZERS.register("sgd")
def _sgd(config: TrainConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    return _with_l2(config, schedule, optax.sgd)


def make_optimizer(
    config: TrainConfig, schedule: optax.Schedule
) -> optax.GradientTransformationExtraArgs:
    """The transformation from gradients to updates, over an `nnx.State` of parameters.

    Raises:
        UnknownNameError: if there is no such optimiser.
    """
    optimizer = OPTIMIZERS[config.optimizer](config, schedule)
    # Both have the same state, so that a run can be continued with and without clipping.
    clip = (
        optax.identity()
        if config.clip_norm is None
        else optax.clip_by_global_norm(config.clip_norm)
    )
    # Last, so that the rest of the state has the same names with and without it.
    averaging = [average_iterates(config.average_from == 0)] if config.averages else []
    return optax.chain(clip, optimizer, *averaging)
