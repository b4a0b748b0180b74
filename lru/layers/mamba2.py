"""Mamba-2 (SSD): heads with a matrix for a state that one factor a step shrinks.

S_t = exp(-exp(A_log) Δ_t) S_{t-1} + B_t (Δ_t x_t)^T and y_t = S_t^T C_t + D x_t for each of H heads
of P channels, with x, B and C from a map of the inputs under a convolution and silu; outputs are
W_out RMSNorm(y silu(z)). Dao and Gu 2024 (arXiv 2405.21060), sections 5 to 7.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from lru.layers.base import LAYERS, RecurrentParam
from lru.layers.cell import uniform
from lru.layers.convolution import DepthwiseConvolution
from lru.layers.heads import head_count
from lru.layers.selective import SelectiveLayer, SelectiveState
from lru.layers.state_spaces import step_biases
from lru.scan import ssd_scan

# Channels of a head, unless their number is given.
CHANNELS_OF_HEAD = 64
# Bounds of the initial rates, exp(A_log).
RATES = (1.0, 16.0)
# Beside the mean square of the outputs.
EPSILON = 1e-5


@LAYERS.register("mamba2")
class Mamba2(SelectiveLayer):
    """Mamba-2: heads with a matrix for a state and one factor a step, by products of matrices.

    Attributes:
        W_in: weights from inputs to gates z, x, B, C and step sizes [D, 2N + 2GM + H].
        convolution: of x, B and C.
        dt_bias: biases of step sizes [H].
        A_log: logarithms of rates [H].
        D: skip weights [H].
        scale: of the normalised outputs [N].
        W_out: weights of the outputs [N, D].
        start: initial states [H, M, P]; None where they are zero.
    """

    def __init__(
        self,
        d_model: int,
        d_hidden: int,
        *,
        d_state: int = 64,
        n_heads: int | None = None,
        n_groups: int = 1,
        window: int = 4,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        learned_start: bool = False,
        chunk_length: int = 64,
        compute_dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        """Draw the parameters.

        Args:
            d_model: width D of inputs and outputs.
            d_hidden: number N of channels, of all heads together; 2 D as published.
            d_state: numbers M of the state of each channel.
            n_heads: number H of heads, a divisor of d_hidden; by default one for 64 channels, and
                one for all where 64 does not divide them.
            n_groups: number G of groups of heads that have B and C in common; a divisor of H.
            window: width K of the convolution before the recurrence; 1 for the step alone.
            dt_min: smallest initial step size.
            dt_max: largest initial step size.
            learned_start: learn the initial state, which else is zero.
            chunk_length: longer sequences run in chunks of so many steps, and gradients run each
                chunk again instead of keeping all states; 0 keeps them.
            compute_dtype: type of matrix products, float32 or bfloat16; states, parameters and sums
                stay float32, and so do the products within the scan.
            rngs: source of the initial parameters.
        """
        super().__init__(
            d_model,
            d_hidden,
            d_state=d_state,
            chunk_length=chunk_length,
            compute_dtype=compute_dtype,
        )
        if n_heads is None:
            n_heads = 1 if d_hidden % CHANNELS_OF_HEAD else d_hidden // CHANNELS_OF_HEAD
        n_heads = head_count(n_heads, d_hidden=d_hidden)
        if n_groups < 1 or n_heads % n_groups:
            raise ValueError(f"n_groups must divide n_heads = {n_heads}, got {n_groups}")
        self.n_heads, self.n_groups = n_heads, n_groups
        self.state_shape = (n_heads, d_state, d_hidden // n_heads)
        seen = d_hidden + 2 * n_groups * d_state
        self.convolution = DepthwiseConvolution(seen, window, rngs=rngs)
        self.W_in = nnx.Param(uniform(rngs.params(), (d_model, d_hidden + seen + n_heads), d_model))
        self.dt_bias = RecurrentParam(step_biases(rngs.params(), n_heads, dt_min, dt_max))
        rates = jax.random.uniform(rngs.params(), (n_heads,), jnp.float32, *RATES)
        self.A_log = RecurrentParam(jnp.log(rates))
        self.D = nnx.Param(jnp.ones(n_heads, jnp.float32))
        self.scale = nnx.Param(jnp.ones(d_hidden, jnp.float32))
        self.W_out = nnx.Param(uniform(rngs.params(), (d_hidden, d_model), d_hidden))
        start = jnp.zeros(self.state_shape, jnp.float32)
        self.start = RecurrentParam(start) if learned_start else None

    def initial_state(self, batch_size: int) -> SelectiveState:
        """Zeros, or what is learned."""
        h, window = super().initial_state(batch_size)
        if self.start is None:
            return SelectiveState(h, window)
        return SelectiveState(h + self.start[...], window)

    def enter(self, x: Float[Array, "B T D"]) -> tuple[Float[Array, "B T C"], tuple[Array, ...]]:
        """See `SelectiveLayer.enter`; beside x, B and C there are gates and step sizes."""
        ends = (self.d_hidden, self.W_in.shape[1] - self.n_heads)
        z, seen, steps = jnp.split(self.multiply(x, self.W_in), ends, axis=-1)
        return seen, (z, steps)

    def recurrence(
        self, u: Float[Array, "B T C"], beside: tuple[Array, ...], dt: Float[Array, "B T 1"] | None
    ) -> tuple[tuple[Array, ...], Float[Array, "B T N"], Float[Array, "B T H"]]:
        """See `SelectiveLayer.recurrence`."""
        width = self.n_groups * self.d_state
        u, B, C = jnp.split(u, (self.d_hidden, self.d_hidden + width), axis=-1)
        B, C = (z.reshape(*z.shape[:2], self.n_groups, self.d_state) for z in (B, C))
        steps = self.step_sizes(beside[1], dt)
        x = self._heads(u) * steps[..., None]
        return (x, -jnp.exp(self.A_log[...]) * steps, B, C), u, steps

    def scan(self, *arguments: Array, **options: Any) -> tuple[Array, Array]:
        """See `SelectiveLayer.scan`."""
        return ssd_scan(*arguments, **options)

    def transitions(self, *arguments: Array) -> tuple[Array, Array]:
        """See `SelectiveLayer.transitions`."""
        x, log_decay, B, _ = arguments
        B = jnp.repeat(B, self.n_heads // self.n_groups, axis=2)
        return jnp.exp(log_decay)[..., None, None], B[..., None] * x[..., None, :]

    def leave(
        self, y: Float[Array, "B T H P"], u: Float[Array, "B T N"], beside: tuple[Array, ...]
    ) -> Float[Array, "B T D"]:
        """See `SelectiveLayer.leave`."""
        y = (y + self.D[...][:, None] * self._heads(u)).reshape(u.shape) * jax.nn.silu(beside[0])
        y = y * jax.lax.rsqrt(jnp.mean(y**2, axis=-1, keepdims=True) + EPSILON)
        return self.multiply(self.scale[...] * y, self.W_out)

    def _heads(self, u: Float[Array, "B T N"]) -> Float[Array, "B T H P"]:
        return u.reshape(*u.shape[:2], self.n_heads, self.d_hidden // self.n_heads)
