"""Gated DeltaNet: the recurrence of `deltanet.py` on a state that decays, with gated outputs.

S_{t-1} becomes a_t S_{t-1} with log a_t = -exp(A_log) softplus(W_a x_t + b) for each head, and
outputs are W_out (RMSNorm(o) silu(W_gate x)). Yang et al. 2024 (arXiv 2412.06464), section 3.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from lru.layers.base import LAYERS, RecurrentParam, State
from lru.layers.cell import uniform
from lru.layers.deltanet import DeltaNet
from lru.layers.state_spaces import log_step_sizes, step_sizes_for

# Largest of the initial rates, exp(A_log).
LARGEST_RATE = 16.0


@LAYERS.register("gated-deltanet")
class GatedDeltaNet(DeltaNet):
    """DeltaNet whose state decays as the inputs say, with gated outputs.

    Attributes:
        W_decay: weights of the decays [D, H].
        decay_bias: their bias b [H].
        A_log: logarithms of their rates [H].
        W_gate: weights of the output gates [D, N].
    """

    def __init__(
        self,
        d_model: int,
        d_hidden: int,
        *,
        n_heads: int | None = None,
        window: int = 4,
        negative_eigenvalues: bool = False,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        chunk_length: int = 32,
        compute_dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        """Draw the parameters: rates from U(0, 16), step sizes log-uniform between two bounds.

        Args:
            d_model: see `DeltaNet`, as for all but the next.
            d_hidden: width N of queries, keys and values.
            n_heads: number H of heads.
            window: width K of the convolution.
            negative_eigenvalues: let beta go up to 2.
            dt_min: smallest initial step size.
            dt_max: largest initial step size.
            chunk_length: steps that are computed at once.
            compute_dtype: type of matrix products with weights.
            rngs: source of the initial parameters.
        """
        super().__init__(
            d_model,
            d_hidden,
            n_heads=n_heads,
            window=window,
            negative_eigenvalues=negative_eigenvalues,
            chunk_length=chunk_length,
            compute_dtype=compute_dtype,
            rngs=rngs,
        )
        heads = (self.n_heads,)
        self.W_decay = nnx.Param(uniform(rngs.params(), (d_model, *heads), d_model))
        self.W_gate = nnx.Param(uniform(rngs.params(), (d_model, d_hidden), d_model))
        step = jnp.exp(log_step_sizes(rngs.params(), heads, dt_min, dt_max))
        self.decay_bias = RecurrentParam(jnp.log(jnp.expm1(step)))
        rate = jax.random.uniform(rngs.params(), heads, jnp.float32, 1e-6, LARGEST_RATE)
        self.A_log = RecurrentParam(jnp.log(rate))

    @classmethod
    def remembering(cls, steps: int) -> dict[str, Any]:
        """Step sizes for the mean of the rates."""
        return step_sizes_for(steps, rate=LARGEST_RATE / 2)

    def inputs(
        self, x: Float[Array, "B T D"], start: State, **options: Any
    ) -> tuple[dict[str, Array], tuple[Array, ...], Array | None]:
        """See `MatrixLayer.inputs`."""
        inputs, _, window = super().inputs(x, start, **options)
        steps = jax.nn.softplus(self.multiply(x, self.W_decay[...]) + self.decay_bias[...])
        inputs["log_decay"] = -jnp.exp(self.A_log[...]) * steps
        return inputs, (self.multiply(x, self.W_gate[...]),), window

    def gates(self, inputs: dict[str, Array]) -> dict[str, Float[Array, "B T H"]]:
        """The share β of what is written, and the factor a of the state, as "forget_gate"."""
        return {**super().gates(inputs), "forget_gate": jnp.exp(inputs["log_decay"])}
