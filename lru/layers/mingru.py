"""Minimal GRU: h_t = (1 - z_t) h_{t-1} + z_t g(k_t) with z_t = sigmoid(W_z x_t), k_t = W_k x_t.

g(k) = k + 1/2 from 0 on and sigmoid(k) below. Feng et al. 2024 (arXiv 2410.01201), section 3.1; g
is of its appendix B, which holds h in logarithms. Here the gates are exact in linear space: 1 - z
is the sigmoid of -W_z x, and a state may have any sign.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from lru.layers.base import LAYERS
from lru.layers.cell import remember, uniform
from lru.layers.elementwise import ElementwiseLayer, Run, known_biases
from lru.scan.pooling import apart


@LAYERS.register("mingru")
class MinGRU(ElementwiseLayer):
    """Minimal GRU, whose gate reads the input alone.

    Attributes:
        weight: input weights of candidate and gate [D, 2 N].
        bias: of both [2 N]; None without biases.
    """

    n_parts: ClassVar[int] = 2
    chrono_signs: ClassVar[Mapping[int, float]] = {1: -1.0}
    splits_time = True

    def __init__(
        self,
        d_model: int,
        d_hidden: int,
        *,
        biases: int = 0,
        chrono: int | None = None,
        scan_method: str = "auto",
        compute_dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        """Draw the parameters.

        Args:
            d_model: width D of inputs and outputs.
            d_hidden: width N of the state.
            biases: number of bias vectors of each gate.
            chrono: draw biases of forget gates for memories of up to so many steps, and those of
                gates of candidates against them; None draws them as all others.
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
        columns = self.n_parts * d_hidden
        self.weight = nnx.Param(uniform(rngs.params(), (d_model, columns), d_model))
        has_bias = known_biases(biases)
        self.bias = nnx.Param(uniform(rngs.params(), (columns,), d_model)) if has_bias else None
        remember(self.bias, d_hidden, chrono, self.chrono_signs, rngs)

    @classmethod
    def remembering(cls, steps: int) -> dict[str, Any]:
        """Chrono initialisation, for which there are biases."""
        return {"biases": 1, "chrono": steps}

    def shares(
        self, *gates: Float[Array, "B T N"]
    ) -> tuple[Float[Array, "B T N"], Float[Array, "B T N"]]:
        """Shares of the state and of the candidate in the next state."""
        return jax.nn.sigmoid(-gates[0]), jax.nn.sigmoid(gates[0])

    def run(
        self, x: Float[Array, "B T D"], start: Float[Array, "B N"], options: dict[str, Any]
    ) -> Run:
        """See `ElementwiseLayer.run`."""
        k, *gates = apart(self.inputs(x), self.n_parts)
        f, take = self.shares(*gates)
        candidate = jnp.where(k >= 0, k + 0.5, jax.nn.sigmoid(k))
        b = take * candidate
        h, last = self.linear_states(f, b, start, options)
        return Run(h, last, {"state": h, "forget_gate": f, "candidate": candidate})


class MinGRUCell(MinGRU):
    """The same without a read-out."""

    reads_out: ClassVar[bool] = False
