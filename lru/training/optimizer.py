"""Optimisers with a slower recurrent group; warm-up, then a cosine or steps.

The groups follow the variables' types: every `RecurrentParam` trains at `lr_factor` times the
rate, and by AdamW without weight decay (LRU, arXiv 2303.06349, appendix B).
"""

import copy
import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from lru.layers import RecurrentParam
from lru.models.config import check_not_negative, check_rates
from lru.registry import Registry
from lru.training.averaging import average_iterates
from lru.training.clipping import check_clip_norm, clip_by_norm
from lru.training.config import TrainConfig
from lru.training.lbfgs import lbfgs

Settings = TypeVar("Settings")

Transformation = optax.GradientTransformationExtraArgs


def with_values(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """A copy of a configuration with other values, which may be traced and are not checked."""
    changed = copy.copy(settings)
    for name, value in values.items():
        object.__setattr__(changed, name, value)
    return changed


def make_schedule(config: TrainConfig, steps_per_epoch: int, total_steps: int) -> optax.Schedule:
    """Learning rate of each update, counted from 0.

    Linear from `lr_min` to `lr_base` over the warm-up, then a half cosine that is at `lr_min` at
    the last update, `total_steps - 1`. A run shorter than its warm-up stays on the ramp.
    """
    warmup = config.warmup_steps or config.warmup_end * steps_per_epoch
    ramp = optax.linear_schedule(config.lr_min, config.lr_base, warmup)
    if not config.cosine_anneal:
        after = _noam(config, warmup) if config.noam else _steps(config, steps_per_epoch)
    else:
        span = max(total_steps - 1 - warmup, 1)
        after = optax.cosine_decay_schedule(config.lr_base, span, alpha=_least_share(config))
    return optax.join_schedules([ramp, after], [warmup]) if warmup else after


def _noam(config: TrainConfig, warmup: int) -> optax.Schedule:
    """The rate after warm-up, over the root of the update (Vaswani et al. 2017, equation 3)."""
    return lambda count: config.lr_base * jnp.sqrt(warmup / (warmup + jnp.asarray(count)))


def _least_share(config: TrainConfig) -> Any:
    """The least rate as a share of `lr_base`, which may be traced and, if it is not, zero."""
    if isinstance(config.lr_base, float | int):
        return config.lr_min / config.lr_base if config.lr_base else 0.0
    return jnp.where(config.lr_base > 0, config.lr_min / config.lr_base, 0.0)


def _steps(config: TrainConfig, steps_per_epoch: int) -> optax.Schedule:
    """The rate of each epoch after warm-up."""
    drops = [int(epoch) for epoch in config.lr_drops.split(",")] if config.lr_drops else []

    def rate(count: jax.typing.ArrayLike) -> jax.Array:
        epoch = jnp.asarray(count) // steps_per_epoch
        decays = jnp.maximum(epoch + 1 - config.lr_decay_from, 0)
        dropped = jnp.sum(epoch >= jnp.array(drops, jnp.int32))
        return config.lr_base * config.lr_decay**decays * 0.1**dropped

    return rate


class Optimizer(ABC):
    """A rule of the updates: a frozen dataclass whose fields are its options, which become flags.

    A new one is a file with a subclass under `OPTIMIZERS.register`. It states `build`.

    Attributes:
        rates_inside: whether its updates heed the keyword `rate`, with all factors on the rate;
            else factors of plateaus and of batches are put on the updates.
    """

    rates_inside: ClassVar[bool] = False

    @abstractmethod
    def build(self, rate: optax.Schedule) -> optax.GradientTransformation:
        """The transformation from gradients to updates, over an `nnx.State` of parameters.

        Its `update` is given keywords that it may ignore: `value`, the loss at the parameters;
        `value_and_grad`, from parameters to the loss and the gradient on the same batch; and
        `rate`, the learning rate of this update.

        Args:
            rate: learning rate of each update, counted from 0, without factors.
        """


OPTIMIZERS: Registry[type[Optimizer]] = Registry("optimizer")


@dataclass(frozen=True)
class _FirstOrder(Optimizer):
    """Options of the rules that follow one gradient."""

    lr_factor: float = 0.25
    """Factor on the learning rate of the recurrent parameters."""
    weight_decay: float = 0.05
    """Weight decay: decoupled in adamw, lion and muon, and of the other parameters; else L2 of
    all."""
    decay_vectors: bool = True
    """Decay the parameters with one axis as well: biases, scales of norms."""
    clip_norm: float | None = None
    """Clip the gradient to this global norm."""

    def __post_init__(self):
        """Check the ranges.

        Raises:
            ValueError: if a value is out of range.
        """
        check_not_negative(self, "lr_factor", "weight_decay")
        check_clip_norm(self.clip_norm)

    def build(self, rate: optax.Schedule) -> optax.GradientTransformation:
        """See `Optimizer.build`."""
        clip = optax.stateless(lambda gradient, params: clip_by_norm(gradient, self.clip_norm))
        return optax.chain(clip, self.rule(rate))

    @abstractmethod
    def rule(self, rate: optax.Schedule) -> optax.GradientTransformation:
        """The transformation of clipped gradients."""

    def slower(self, rate: optax.Schedule) -> optax.Schedule:
        """The learning rate of the recurrent parameters."""
        return lambda count: self.lr_factor * jnp.asarray(rate(count))

    def with_l2(
        self, rate: optax.Schedule, rule: Callable[[optax.Schedule], optax.GradientTransformation]
    ) -> optax.GradientTransformation:
        """A rule whose recurrent group is slower, after decay of all parameters."""
        descent = by_group(rule(rate), rule(self.slower(rate)))
        return optax.chain(optax.add_decayed_weights(self.weight_decay, self.decayed), descent)

    def decayed(self, params: Any) -> Any:
        """True for each parameter that decays if its group does."""
        return jax.tree.map(lambda leaf: self.decay_vectors or jnp.ndim(leaf) > 1, params)


def by_group(
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


@OPTIMIZERS.register("adamw", "adam")
@dataclass(frozen=True)
class AdamW(_FirstOrder):
    """Adam with decoupled weight decay of all but the recurrent parameters."""

    decay_recurrent: bool = False
    """Decay the recurrent parameters, too."""

    def rule(self, rate: optax.Schedule) -> optax.GradientTransformation:
        """See `_FirstOrder.rule`."""
        decayed = partial(optax.adamw, weight_decay=self.weight_decay, mask=self.decayed)
        slower = decayed if self.decay_recurrent else optax.adam
        return by_group(decayed(rate), slower(self.slower(rate)))


@OPTIMIZERS.register("lion")
@dataclass(frozen=True)
class Lion(_FirstOrder):
    """Signs of a momentum (Chen et al. 2023, arXiv 2302.06675), with decay as in AdamW."""

    def rule(self, rate: optax.Schedule) -> optax.GradientTransformation:
        """See `_FirstOrder.rule`."""
        decayed = optax.lion(rate, weight_decay=self.weight_decay, mask=self.decayed)
        return by_group(decayed, optax.lion(self.slower(rate), weight_decay=0.0))


@OPTIMIZERS.register("muon")
@dataclass(frozen=True)
class Muon(_FirstOrder):
    """Orthogonalised momentum of matrices (Jordan et al. 2024); AdamW of all else.

    The recurrent parameters, matrices too, follow Adam.
    """

    def rule(self, rate: optax.Schedule) -> optax.GradientTransformation:
        """See `_FirstOrder.rule`."""
        decay = self.weight_decay
        regular = optax.contrib.muon(
            rate,
            weight_decay=decay,
            weight_decay_mask=self.decayed,
            adam_weight_decay=decay if self.decay_vectors else 0.0,
        )
        return by_group(regular, optax.adam(self.slower(rate)))


@OPTIMIZERS.register("adagrad")
@dataclass(frozen=True)
class Adagrad(_FirstOrder):
    """Gradients over the root of the sum of their squares, without an epsilon."""

    def rule(self, rate: optax.Schedule) -> optax.GradientTransformation:
        """See `_FirstOrder.rule`."""
        return self.with_l2(rate, partial(optax.adagrad, initial_accumulator_value=0.0, eps=0.0))


@OPTIMIZERS.register("rmsprop")
@dataclass(frozen=True)
class RMSProp(_FirstOrder):
    """RMSProp with epsilon 1e-8, as in the QRNN paper (arXiv 1611.01576, section 3.1)."""

    decay: float = 0.9
    """Decay of the mean square of the gradients: 0.9 in the QRNN paper, 0.99 in PyTorch."""

    def __post_init__(self):
        """Check the ranges.

        Raises:
            ValueError: if a value is out of range.
        """
        super().__post_init__()
        check_rates(self, "decay")

    def rule(self, rate: optax.Schedule) -> optax.GradientTransformation:
        """See `_FirstOrder.rule`."""
        rule = partial(optax.rmsprop, decay=self.decay, eps=1e-8, eps_in_sqrt=False)
        return self.with_l2(rate, rule)


@OPTIMIZERS.register("sgd")
@dataclass(frozen=True)
class SGD(_FirstOrder):
    """Gradient descent."""

    momentum: float = 0.0
    """Share of the update before that is added to each one."""
    nesterov: bool = False
    """Look ahead by the momentum."""

    def __post_init__(self):
        """Check the ranges.

        Raises:
            ValueError: if a value is out of range, or nesterov is without momentum.
        """
        super().__post_init__()
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {self.momentum}")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov has no effect without momentum; got True")

    def rule(self, rate: optax.Schedule) -> optax.GradientTransformation:
        """See `_FirstOrder.rule`."""
        momentum = self.momentum or None
        return self.with_l2(rate, partial(optax.sgd, momentum=momentum, nesterov=self.nesterov))


@OPTIMIZERS.register("lbfgs")
@dataclass(frozen=True)
class LBFGS(Optimizer):
    """L-BFGS with the algorithm of PyTorch: a batch is evaluated several times an update."""

    history_size: int = 100
    """Number of past steps that approximate the curvature."""
    max_iter: int = 20
    """Most iterations in an update."""
    max_eval: int | None = None
    """Most evaluations of the loss in an update; unset: 1.25 times max_iter."""
    tolerance_grad: float = 1e-7
    """End the update when the largest entry of the gradient is at most this."""
    tolerance_change: float = 1e-9
    """End the update when parameters or loss change by less than this."""
    line_search: Literal["none", "strong_wolfe"] = "none"
    """Step by the learning rate, or search for one that fulfils the strong Wolfe conditions."""
    clip_norm: float | None = None
    """Clip each gradient to this global norm."""

    rates_inside: ClassVar[bool] = True

    def __post_init__(self):
        """Check the values.

        Raises:
            ValueError: if one is out of range.
        """
        self.build(optax.constant_schedule(1.0))

    def build(self, rate: optax.Schedule) -> Transformation:
        """See `Optimizer.build`."""
        del rate  # `update` is given it.
        return lbfgs(**dataclasses.asdict(self))


class OptimizerState(NamedTuple):
    """State of an optimiser.

    Attributes:
        rule: of the rule of the updates.
        average: of the mean of the iterates; empty if there is none.
    """

    rule: optax.OptState
    average: Any


def make_optimizer(
    optimizer: Optimizer, config: TrainConfig, schedule: optax.Schedule
) -> Transformation:
    """The rule of the updates with the factors on its rate, and the mean of the iterates.

    Its `update` also takes `factor`, that on the learning rate of this update; the rest is as for
    `Optimizer.build`.
    """
    rule = optax.with_extra_args_support(optimizer.build(schedule))
    averaging = (
        average_iterates(config.averages_from_start, config.least_weight)
        if config.averages
        else None
    )

    def init(params: optax.Params) -> OptimizerState:
        return OptimizerState(rule.init(params), averaging.init(params) if averaging else ())

    def update(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        factor: jax.typing.ArrayLike = 1,
        **extra: Any,
    ) -> tuple[optax.Updates, OptimizerState]:
        updates, after = rule.update(updates, state.rule, params, **extra)
        if not optimizer.rates_inside:
            updates = jax.tree.map(lambda update: factor * update, updates)
        average = averaging.update(updates, state.average, params)[1] if averaging else ()
        return updates, OptimizerState(after, average)

    return Transformation(init, update)
