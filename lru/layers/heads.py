"""Layers of several heads, each with a matrix for a state: what they share.

Before the recurrence inputs pass a short causal convolution of each channel, whose window is part
of the state; after it each head is normalised by itself.
"""

import math
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer

from lru.layers.base import RecurrentLayer, State, known_compute_dtype, without_padding, zeros
from lru.layers.convolution import DepthwiseConvolution
from lru.scan.methods import traced_once
from lru.scan.products import product


class MatrixLayer(RecurrentLayer):
    """Base of the layers with a matrix [P, P] for each of H heads, of width P = N / H.

    A subclass has `inputs`, `scan`, `outputs` and `memory`.

    Attributes:
        n_heads: number H of heads.
        chunk_length: number L of steps that are computed at once.
        compute_dtype: type of matrix products with weights.
        convolution: short convolution; None without one.
        state_type: of its states: arrays [B, H, ...], of which the first is [B, H, P, P], and the
            window of the convolution.
    """

    state_type: ClassVar[Any]
    convolution: DepthwiseConvolution | None

    def __init__(
        self,
        d_model: int,
        d_hidden: int,
        *,
        n_heads: int | None = None,
        window: int = 4,
        chunk_length: int = 32,
        compute_dtype: str = "float32",
    ):
        """Check the options.

        Args:
            d_model: width D of inputs and outputs.
            d_hidden: width N of queries, keys and values, of all heads together; a head has a
                state of N / H times N / H numbers.
            n_heads: number H of heads, a divisor of d_hidden; by default 4, or 2 or 1 where 4 does
                not divide it.
            window: width K of the convolution before the recurrence; 1 for none.
            chunk_length: steps that are computed at once, by products of matrices; gradients run
                each such chunk again instead of keeping all states. 0 takes all steps at once.
            compute_dtype: type of matrix products with weights, float32 or bfloat16; states,
                parameters and sums stay float32.
        """
        super().__init__(d_model, d_hidden)
        self.n_heads = head_count(n_heads, d_hidden=d_hidden)
        self.compute_dtype = known_compute_dtype(compute_dtype)
        for name, value, least in (("window", window, 1), ("chunk_length", chunk_length, 0)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        self.chunk_length = chunk_length

    def memory(self, rows: int) -> tuple[Float[Array, "B H ..."], ...]:
        """The zeros that a state begins with, but for the window."""
        raise NotImplementedError

    def inputs(
        self, x: Float[Array, "B T D"], start: State, **options: Any
    ) -> tuple[dict[str, Array], tuple[Array, ...], Array | None]:
        """Inputs of the scan by name, what `outputs` needs beside the scan's, and the window.

        Options are those of `convolved`.
        """
        raise NotImplementedError

    def scan(
        self, inputs: dict[str, Array], start: tuple[Array, ...], **options: Any
    ) -> tuple[Float[Array, "B T H ..."], tuple[Array, ...]]:
        """The scan from a state without its window; options are those of `lru.scan`."""
        raise NotImplementedError

    def outputs(
        self, h: Float[Array, "B T H P"], beside: tuple[Array, ...]
    ) -> Float[Array, "B T D"]:
        """The outputs of the layer from those of the scan."""
        raise NotImplementedError

    def gates(self, inputs: dict[str, Array]) -> dict[str, Float[Array, "B T H"]]:
        """Gates that `observe` shows beside the state, by name."""
        raise NotImplementedError

    @zeros
    def initial_state(self, batch_size: int) -> State:
        """Zeros."""
        convolution = self.convolution
        window = None if convolution is None else convolution.initial_window(batch_size)
        return self.state_type(*self.memory(batch_size), window)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        state: State = None,
        *,
        lengths: Integer[Array, " B"] | None = None,
        resets: Bool[Array, "B T"] | None = None,
        reverse: bool = False,
    ) -> tuple[Float[Array, "B T D"], State]:
        """See `RecurrentLayer.__call__`."""
        inputs, beside, start, window, options = self._problem(x, state, lengths, resets, reverse)
        h, memory = self.scan(inputs, start, chunk_length=self.chunk_length, **options)
        y = self.outputs(h, beside).astype(x.dtype)
        return without_padding(y, options["lengths"]), self.state_type(*memory, window)

    def observe(
        self,
        x: Float[Array, "B T D"],
        state: State = None,
        *,
        lengths: Integer[Array, " B"] | None = None,
        resets: Bool[Array, "B T"] | None = None,
        reverse: bool = False,
    ) -> dict[str, Float[Array, "B T M"]]:
        """See `RecurrentLayer.observe`; states are [B, T, H P P] and gates [B, T, H]."""
        inputs, _, start, _, options = self._problem(x, state, lengths, resets, reverse)
        states, _ = self.scan(inputs, start, states=True, **options)
        states = states.reshape(*x.shape[:2], self.d_hidden**2 // self.n_heads)
        return {"state": states, **self.gates(inputs)}

    def _problem(
        self,
        x: Array,
        state: State,
        lengths: Array | None,
        resets: Array | None,
        reverse: bool,
    ) -> tuple[dict[str, Array], tuple[Array, ...], tuple[Array, ...], Array | None, dict]:
        x, start, options = self.prepared(x, state, lengths, resets, reverse)
        fresh = options.pop("reset_to")
        afresh = None if fresh is None else fresh.window
        inputs, beside, window = self.inputs(x, start, fresh=afresh, **options)
        options["reset_to"] = None if fresh is None else tuple(fresh[:-1])
        return inputs, beside, tuple(start[:-1]), window, options

    def convolved(
        self, x: Float[Array, "B T M"], start: State, **options: Any
    ) -> tuple[Float[Array, "B T M"], Array | None]:
        """The convolution under SiLU, and the window to hand on."""
        if self.convolution is None:
            return jax.nn.silu(x), None
        y, window = self.convolution(x, start.window, **options)
        return jax.nn.silu(y), window

    def heads(self, x: Float[Array, "B T N"]) -> Float[Array, "B T H P"]:
        """The channels of each head."""
        return x.reshape(*x.shape[:2], self.n_heads, self.d_hidden // self.n_heads)

    def multiply(self, x: Float[Array, "B T D"], weight: Array) -> Float[Array, "B T M"]:
        """`product` in the type of the weights."""
        return product(x.astype(weight.dtype), weight, self.compute_dtype)


def head_count(n_heads: int | None, **widths: int) -> int:
    """The number of heads, that given or the most of 4, 2 and 1 that divide all widths.

    Raises:
        ValueError: if it does not divide a width.
    """
    if n_heads is None:
        return math.gcd(4, *widths.values())
    for name, width in widths.items():
        if n_heads < 1 or width % n_heads:
            raise ValueError(f"n_heads must divide {name} = {width}, got {n_heads}")
    return n_heads


@partial(traced_once, static_argnums=2)
def multiply_blocks(
    x: Float[Array, "B T D"], weight: Float[Array, "H P Q"], compute_dtype: str
) -> Float[Array, "B T M"]:
    """The product of x with a block-diagonal matrix of H blocks."""
    blocks = x.reshape(*x.shape[:2], *weight.shape[:2]).astype(weight.dtype)
    multiply = jax.vmap(lambda x, w: product(x, w, compute_dtype), (2, 0), 2)
    return multiply(blocks, weight).reshape(*x.shape[:2], weight.shape[0] * weight.shape[2])


def centred(x: Float[Array, "... P"], epsilon: float = 1e-5) -> Float[Array, "... P"]:
    """X with mean 0 and variance 1 along the last axis."""
    x = x - x.mean(axis=-1, keepdims=True)
    return scaled(x, epsilon)


def scaled(x: Float[Array, "... P"], epsilon: float = 1e-5) -> Float[Array, "... P"]:
    """X with root mean square 1 along the last axis."""
    return x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + epsilon)
