"""Mamba (S6): a diagonal state space for each channel, whose steps, B and C follow from the inputs.

h_t = exp(Δ_t A) h_{t-1} + Δ_t B_t u_t and y_t = C_t h_t + D u_t for each of N channels, with
u = silu(conv(W x)); outputs are W_out (y silu(W_z x)). Gu and Dao 2023 (arXiv 2312.00752), sections
3.2 and 3.4.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from lru.layers.base import LAYERS, RecurrentParam
from lru.layers.cell import uniform
from lru.layers.chunks import skip
from lru.layers.convolution import DepthwiseConvolution
from lru.layers.selective import SelectiveLayer
from lru.layers.state_spaces import step_biases
from lru.scan import selective_scan
from lru.scan.selective import transitions

# Of the width D, the published rank of the map to step sizes.
SHARE_OF_RANK = 16


@LAYERS.register("mamba")
class Mamba(SelectiveLayer):
    """Mamba: a state space for each channel, whose steps, inputs and outputs follow from the data.

    Attributes:
        W_in: weights from inputs to channels and to their gates [D, 2N].
        convolution: of the channels.
        W_x: weights from channels to the inputs of W_dt, to B and to C [N, R + 2M].
        W_dt: weights of step sizes [R, N].
        dt_bias: their biases [N].
        A_log: logarithms of rates [M, N].
        D: skip weights [N].
        W_out: weights of the outputs [N, D].
    """

    def __init__(
        self,
        d_model: int,
        d_hidden: int,
        *,
        d_state: int = 16,
        dt_rank: int | None = None,
        window: int = 4,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        scan_method: str = "auto",
        chunk_length: int = 32,
        compute_dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        """Draw the parameters.

        Args:
            d_model: width D of inputs and outputs.
            d_hidden: number N of channels, each with a state of its own; 2 D as published.
            d_state: numbers M of the state of each channel.
            dt_rank: rank R of the map from channels to step sizes; D / 16, rounded up, by default.
            window: width K of the convolution before the recurrence; 1 for the step alone.
            dt_min: smallest initial step size.
            dt_max: largest initial step size.
            scan_method: algorithm of the scan; auto picks by platform.
            chunk_length: longer sequences run in chunks of so many steps, and gradients run each
                chunk again instead of keeping all states; 0 keeps them, and so do scan methods that
                split time over devices.
            compute_dtype: type of matrix products, float32 or bfloat16; states, parameters and sums
                stay float32.
            rngs: source of the initial parameters.
        """
        super().__init__(
            d_model,
            d_hidden,
            d_state=d_state,
            chunk_length=chunk_length,
            compute_dtype=compute_dtype,
            scan_method=scan_method,
        )
        rank = -(-d_model // SHARE_OF_RANK) if dt_rank is None else dt_rank
        if rank < 1:
            raise ValueError(f"dt_rank must be at least 1, got {rank}")
        self.dt_rank = rank
        self.state_shape = (d_state, d_hidden)
        self.convolution = DepthwiseConvolution(d_hidden, window, rngs=rngs)
        self.W_in = nnx.Param(uniform(rngs.params(), (d_model, 2 * d_hidden), d_model))
        self.W_x = nnx.Param(uniform(rngs.params(), (d_hidden, rank + 2 * d_state), d_hidden))
        self.W_dt = nnx.Param(uniform(rngs.params(), (rank, d_hidden), rank))
        self.dt_bias = RecurrentParam(step_biases(rngs.params(), d_hidden, dt_min, dt_max))
        rates = jnp.arange(1, d_state + 1, dtype=jnp.float32)
        self.A_log = RecurrentParam(jnp.tile(jnp.log(rates)[:, None], (1, d_hidden)))
        self.D = nnx.Param(jnp.ones(d_hidden, jnp.float32))
        self.W_out = nnx.Param(uniform(rngs.params(), (d_hidden, d_model), d_hidden))

    def enter(self, x: Float[Array, "B T D"]) -> tuple[Float[Array, "B T N"], tuple[Array, ...]]:
        """See `SelectiveLayer.enter`; beside the channels there are their gates."""
        u, z = jnp.split(self.multiply(x, self.W_in), 2, axis=-1)
        return u, (z,)

    def recurrence(
        self, u: Float[Array, "B T N"], beside: tuple[Array, ...], dt: Float[Array, "B T 1"] | None
    ) -> tuple[tuple[Array, ...], Float[Array, "B T N"], Float[Array, "B T N"]]:
        """See `SelectiveLayer.recurrence`."""
        ends = (self.dt_rank, self.dt_rank + self.d_state)
        low, B, C = jnp.split(self.multiply(u, self.W_x), ends, axis=-1)
        steps = self.step_sizes(self.multiply(low, self.W_dt), dt)
        return (u, steps, -jnp.exp(self.A_log[...]), B[:, :, None], C[:, :, None]), u, steps

    def scan(self, *arguments: Array, **options: Any) -> tuple[Array, Array]:
        """See `SelectiveLayer.scan`."""
        return selective_scan(*arguments, method=self.scan_method, **options)

    def transitions(self, *arguments: Array) -> tuple[Array, Array]:
        """See `SelectiveLayer.transitions`."""
        return transitions(*arguments[:-1])

    def leave(
        self, y: Float[Array, "B T N"], u: Float[Array, "B T N"], beside: tuple[Array, ...]
    ) -> Float[Array, "B T D"]:
        """See `SelectiveLayer.leave`."""
        return self.multiply((y + skip(self.D[...], u)) * jax.nn.silu(beside[0]), self.W_out)
