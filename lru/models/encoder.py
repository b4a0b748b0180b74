"""Encoder: a stack of residual blocks, each a norm, a recurrence and a gated linear unit."""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Inexact, Integer, Key

from lru.layers import Bidirectional, Convolved, RecurrentLayer, make_layer
from lru.layers.base import State, noise
from lru.models.body import BODIES, Body, BodyOptions, narrowed
from lru.models.config import ModelConfig, one_of
from lru.scan.methods import step_counts, valid_steps
from lru.scan.products import dot_general

# Runs of a few hundred steps are normal here; flax's 0.99 would still remember the initial values.
BATCH_NORM_MOMENTUM = 0.9

TIME_AXIS = 1

Norm = Literal["batch", "layer"]


@dataclass(frozen=True)
class BlockOptions(BodyOptions):
    """Options of a body of blocks."""

    bidirectional: bool = False
    """Run each layer in both directions of time."""
    conv_width: int = 1
    """Steps that a convolution of each channel before each layer sees, with its own; 1 for none."""
    norm: Norm = "batch"
    """Normalisation of each block; batch statistics leave padding out."""
    prenorm: bool = True
    """Normalise before the recurrence; else after the residual sum."""
    remat: bool = False
    """Keep the inputs of each block alone for the gradients, and compute the rest of it again."""

    def __post_init__(self):
        """Check the values.

        Raises:
            ValueError: if there is no such norm, or the convolution has no width.
        """
        super().__post_init__()
        if self.conv_width < 1:
            raise ValueError(f"conv_width must be at least 1, got {self.conv_width}")
        one_of("norm", self.norm, Norm)


def step_mask(
    x: Float[Array, "B T D"], lengths: Integer[Array, " B"] | None
) -> Bool[Array, "B T 1"] | None:
    """True on the valid steps of x; None if all are."""
    valid = valid_steps(x, step_counts(lengths, x.shape[TIME_AXIS]))
    return None if valid is None else valid[..., None]


class BatchNorm(nnx.BatchNorm):
    """Batch norm by the statistics of all rows, also where a mapped axis splits them.

    The mean over devices of their means, which is that of Flax, would weigh the steps of a device
    whose rows are short more than others.
    """

    def __call__(
        self,
        x: Float[Array, "*rows D"],
        use_running_average: bool | None = None,
        *,
        mask: Bool[Array, "B T 1"] | None = None,
    ) -> Float[Array, "*rows D"]:
        """Normalise features; arguments are those of Flax."""
        if self.axis_name is None or use_running_average:
            return super().__call__(x, use_running_average, mask=mask)
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        over, counted = tuple(range(x.ndim - 1)), jnp.ones_like(wide[..., :1])
        sums = [jnp.sum(of, over, where=mask) for of in (counted, wide, wide**2)]
        count, total, squares = jax.lax.psum(sums, self.axis_name)
        mean = total / count
        of_batch = mean, jnp.maximum(squares / count - mean**2, 0)
        running = self.mean[...], self.var[...]
        self.mean[...], self.var[...] = of_batch
        y = super().__call__(x, use_running_average=True)
        kept = self.momentum
        self.mean[...], self.var[...] = (
            kept * old + (1 - kept) * new for old, new in zip(running, of_batch, strict=True)
        )
        return y


class Block(nnx.Module):
    """x + drop(GLU(drop(gelu(recurrence(norm(x)))))), or the norm after the sum.

    The order is that of S5 (arXiv 2208.04933, appendix G) and LRU (arXiv 2303.06349, figure 1).
    """

    def __init__(self, config: ModelConfig, options: BlockOptions | None = None, *, rngs: nnx.Rngs):
        """Build the block; see `Body`."""
        options = options or BlockOptions()
        width, dtype = config.d_model, options.narrow

        def build(rngs: nnx.Rngs) -> RecurrentLayer:
            of_layer = options.of_layer(config)
            layer = make_layer(config.model, width, config.d_hidden, of_layer, rngs=rngs)
            convolved = options.conv_width > 1
            return Convolved(layer, options.conv_width, rngs=rngs) if convolved else layer

        self.recurrence = Bidirectional(build, rngs=rngs) if options.bidirectional else build(rngs)
        self.prenorm, self.narrow = options.prenorm, dtype
        self.norm = (
            BatchNorm(width, momentum=BATCH_NORM_MOMENTUM, dtype=dtype, rngs=rngs)
            if options.norm == "batch"
            else nnx.LayerNorm(width, dtype=dtype, rngs=rngs)
        )
        # Two maps, not one of twice the width: splitting its output costs a copy in each direction.
        linear = partial(nnx.Linear, width, width, dtype=dtype, dot_general=dot_general)
        self.value, self.gate = linear(rngs=rngs), linear(rngs=rngs)
        tied = (TIME_AXIS,) if config.locked_dropout else ()
        self.dropout = nnx.Dropout(config.p_dropout, broadcast_dims=tied)

    def _normalise(
        self,
        x: Float[Array, "*rows D"],
        mask: Bool[Array, "B T 1"] | None = None,
        train: bool = False,
    ) -> Float[Array, "*rows D"]:
        def run(norm: nnx.BatchNorm | nnx.LayerNorm, x: Array, mask: Array | None) -> Array:
            if isinstance(norm, nnx.BatchNorm):
                return norm(x, use_running_average=not train, mask=mask)
            return norm(x)

        # Norms compute in float32: kept for the gradients, that would take more than the features.
        return (nnx.remat(run) if self.narrow else run)(self.norm, x, mask)

    def _activated(self, y: Float[Array, "*rows D"]) -> Float[Array, "*rows D"]:
        # Its derivative would keep three arrays beside y, of which this one is computed fast.
        return (jax.checkpoint(nnx.gelu) if self.narrow else nnx.gelu)(y)

    def _gated(self, y: Float[Array, "*rows D"]) -> Float[Array, "*rows D"]:
        return self.value(y) * nnx.sigmoid(self.gate(y))

    def _drop(self, x: Float[Array, "B T D"], key: Key[Array, ""] | None) -> Float[Array, "B T D"]:
        return self.dropout(x, deterministic=key is None, rngs=key)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        state: State = None,
        *,
        lengths: Integer[Array, " B"] | None = None,
        resets: Bool[Array, "B T"] | None = None,
        train: bool = False,
        key: Key[Array, ""] | None = None,
    ) -> tuple[Float[Array, "B T D"], State]:
        """Run the block; arguments as for `Body.__call__`."""
        keys = (None, None) if key is None else jax.random.split(key)
        mask = step_mask(x, lengths)
        y = self._normalise(x, mask, train) if self.prenorm else x
        added = noise(self.recurrence, None if key is None else jax.random.fold_in(key, 2))
        y, state = self.recurrence(y, state, lengths=lengths, resets=resets, **added)
        y = self._drop(self._activated(y), keys[0])
        y = x + self._drop(self._gated(y), keys[1])
        return (y if self.prenorm else self._normalise(y, mask, train)), state

    def observe(
        self,
        x: Float[Array, "B T D"],
        state: State = None,
        *,
        lengths: Integer[Array, " B"] | None = None,
        resets: Bool[Array, "B T"] | None = None,
    ) -> dict[str, Inexact[Array, "B T N"]]:
        """Record what happens inside the recurrence; see `Body.observe`."""
        y = self._normalise(x) if self.prenorm else x
        return self.recurrence.observe(y, state, lengths=lengths, resets=resets)

    def step(self, x_t: Float[Array, "B D"], state: State) -> tuple[Float[Array, "B D"], State]:
        """Advance one step in evaluation mode.

        Raises:
            NoStepError: if the recurrence has no step mode.
        """
        y = self._normalise(x_t) if self.prenorm else x_t
        y, state = self.recurrence.step(y, state)
        y = x_t + self._gated(nnx.gelu(y))
        return (y if self.prenorm else self._normalise(y)), state


@BODIES.register("blocks")
class Encoder(Body):
    """Residual blocks with normalisation and dropout around each layer."""

    Options = BlockOptions

    def __init__(self, config: ModelConfig, options: BlockOptions | None = None, *, rngs: nnx.Rngs):
        """Build the blocks; see `Body`."""
        options = options or BlockOptions()
        self.blocks = nnx.List(Block(config, options, rngs=rngs) for _ in range(config.n_layers))
        self.narrow, self.remat = options.narrow, options.remat

    @property
    def causal(self) -> bool:
        """False if the blocks run in both directions; see `Body.causal`."""
        return not any(isinstance(block.recurrence, Bidirectional) for block in self.blocks)

    def initial_state(self, batch_size: int) -> list[State]:
        """The state of every block before the first step."""
        return [block.recurrence.initial_state(batch_size) for block in self.blocks]

    def __call__(
        self,
        x: Float[Array, "B T D"],
        state: list[State] | None = None,
        *,
        lengths: Integer[Array, " B"] | None = None,
        resets: Bool[Array, "B T"] | None = None,
        train: bool = False,
        key: Key[Array, ""] | None = None,
    ) -> tuple[Float[Array, "B T D"], list[State]]:
        """Run all blocks; see `Body.__call__`."""
        states = [None] * len(self.blocks) if state is None else state
        keys = [None] * len(self.blocks) if key is None else jax.random.split(key, len(self.blocks))
        y, after = narrowed(x, self.narrow), []
        run = nnx.remat(_run, static_argnums=6) if self.remat else _run
        for block, before, block_key in zip(self.blocks, states, keys, strict=True):
            y, new = run(block, y, before, lengths, resets, block_key, train)
            after.append(new)
        return y.astype(x.dtype), after

    def observe(
        self,
        x: Float[Array, "B T D"],
        state: list[State] | None = None,
        *,
        lengths: Integer[Array, " B"] | None = None,
        resets: Bool[Array, "B T"] | None = None,
    ) -> list[dict[str, Inexact[Array, "B T N"]]]:
        """Record what happens inside each recurrence; see `Body.observe`."""
        states = [None] * len(self.blocks) if state is None else state
        x, observed = narrowed(x, self.narrow), []
        for block, before in zip(self.blocks, states, strict=True):
            observed.append(block.observe(x, before, lengths=lengths, resets=resets))
            x, _ = block(x, before, lengths=lengths, resets=resets)
        return observed

    def step(
        self, x_t: Float[Array, "B D"], state: list[State]
    ) -> tuple[Float[Array, "B D"], list[State]]:
        """Advance all blocks one step; see `Body.step`."""
        y_t, after = narrowed(x_t, self.narrow), []
        for block, before in zip(self.blocks, state, strict=True):
            y_t, new = block.step(y_t, before)
            after.append(new)
        return y_t.astype(x_t.dtype), after


def _run(
    block: Block, x: Array, state: State, lengths: Any, resets: Any, key: Any, train: bool
) -> tuple[Array, State]:
    return block(x, state, lengths=lengths, resets=resets, train=train, key=key)
