"""Hierarchically gated recurrent network: h_t = f_t h_{t-1} + (1 - f_t) silu(W_i x_t).

f_t = γ + (1 - γ) sigmoid(W_f x_t) with a lower bound γ, and y_t = W_o (norm(h_t) ⊙ silu(W_g x_t)),
norm by root mean square. Qin et al. 2023 (arXiv 2311.04823), section 3, with the real state and the
initial values of its code in flash-linear-attention. There layer l of L starts from γ = l / L.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from lru.layers.base import LAYERS, RecurrentParam
from lru.layers.cell import chrono_biases
from lru.layers.elementwise import ElementwiseLayer, Run
from lru.layers.initializers import normal
from lru.scan.pooling import apart

EPSILON = 1e-5
# A lower bound of 0 has no finite logit.
SMALLEST_BIAS = 1e-6


@LAYERS.register("hgrn")
class HGRN(ElementwiseLayer):
    """Hierarchically gated recurrent network: a forget gate that has a lower bound.

    Attributes:
        weight: input weights of candidate, forget and output gate [D, 3 N].
        bound: number [N] whose sigmoid is the lower bound; None where that is 0.
        scale: of the norm [N].
        readout: linear map from N to D without bias.
    """

    always_reads_out = True
    readout: nnx.Linear
    splits_time = True

    def __init__(
        self,
        d_model: int,
        d_hidden: int,
        *,
        lower_bound: float = 0.0,
        weight_std: float = 0.02,
        chrono: int | None = None,
        scan_method: str = "auto",
        compute_dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        """Draw the parameters.

        Args:
            d_model: width D of inputs and outputs.
            d_hidden: width N of the state.
            lower_bound: initial lower bound of the forget gate, which is learned unless it is 0;
                published stacks have l / L in layer l of L, from 0 on.
            weight_std: standard deviation of the initial weights.
            chrono: draw lower bounds by which forget gates start with memories of up to so many
                steps; None starts all from lower_bound.
            scan_method: algorithm of the scan; auto picks by platform.
            compute_dtype: type of matrix products, float32 or bfloat16; states, parameters and sums
                stay float32.
            rngs: source of the initial parameters.

        Raises:
            ValueError: if a value is out of range.
        """
        super().__init__(
            d_model, d_hidden, scan_method=scan_method, compute_dtype=compute_dtype, rngs=rngs
        )
        if not 0 <= lower_bound < 1:
            raise ValueError(f"lower_bound must be in [0, 1), got {lower_bound}")
        if not weight_std > 0:
            raise ValueError(f"weight_std must be above 0, got {weight_std}")

        def draw(*shape: int) -> nnx.Param:
            return nnx.Param(normal(rngs.params(), shape, weight_std**2))

        self.weight = draw(d_model, 3 * d_hidden)
        self.bias = None
        bound = None
        if chrono is not None:
            if lower_bound:
                raise ValueError(f"chrono must be None with a lower_bound, got {chrono}")
            # (1 + γ) / 2 = sigmoid(b), solved for the logarithm of γ / (1 - γ).
            biases = chrono_biases(rngs.params(), d_hidden, chrono)
            bound = jnp.log(jnp.expm1(jnp.maximum(biases, SMALLEST_BIAS)) / 2)
        elif lower_bound:
            logit = math.log(lower_bound / (1 - lower_bound))
            bound = jnp.full(d_hidden, logit, jnp.float32)
        self.bound = None if bound is None else RecurrentParam(bound)
        self.scale = nnx.Param(jnp.ones(d_hidden, jnp.float32))
        self.readout.kernel = draw(d_hidden, d_model)

    def run(
        self, x: Float[Array, "B T D"], start: Float[Array, "B N"], options: dict[str, Any]
    ) -> Run:
        """See `ElementwiseLayer.run`."""
        i, f, g = apart(self.inputs(x), 3)
        candidate, take, f = jax.nn.silu(i), jax.nn.sigmoid(-f), jax.nn.sigmoid(f)
        if self.bound is not None:
            bound = self.bound[...]
            take *= jax.nn.sigmoid(-bound)
            f = jax.nn.sigmoid(bound) + jax.nn.sigmoid(-bound) * f
        b = take * candidate
        h, last = self.linear_states(f, b, start, options)
        size = jax.lax.rsqrt(jnp.mean(h**2, axis=-1, keepdims=True) + EPSILON)
        output_gate = jax.nn.silu(g)
        inside = {"forget_gate": f, "candidate": candidate, "output_gate": output_gate}
        return Run(h * size * self.scale[...] * output_gate, last, {"state": h, **inside})
