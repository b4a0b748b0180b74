"""Independently recurrent network: h_t = act(W x_t + b + u ⊙ h_{t-1}), act = relu or tanh.

Li et al. 2018 (arXiv 1803.04831), section 3, with u = 1 at the start.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from lru.layers.base import LAYERS, RecurrentParam
from lru.layers.elementwise import ElementwiseLayer, Run, known_biases, run_units
from lru.layers.initializers import normal
from lru.scan import Elementwise


def _relu(u: Float[Array, " N"], x: Array, h: Array) -> Array:
    return jax.nn.relu(x + u * h)


def _tanh(u: Float[Array, " N"], x: Array, h: Array) -> Array:
    return jnp.tanh(x + u * h)


STEPS = {
    "relu": Elementwise(_relu, native="relu"),
    "tanh": Elementwise(_tanh, native="tanh"),
}


@LAYERS.register("indrnn")
class IndRNN(ElementwiseLayer):
    """Independently recurrent network: each unit reads its own state alone.

    Attributes:
        weight: input weights [D, N].
        bias: [N]; None without biases.
        u: recurrent weights [N].
    """

    def __init__(
        self,
        d_model: int,
        d_hidden: int,
        *,
        activation: str = "relu",
        u_max: float | None = None,
        r_min: float = 1.0,
        r_max: float = 1.0,
        biases: int = 1,
        compute_dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        """Draw the parameters.

        Args:
            d_model: width D of inputs and outputs.
            d_hidden: width N of the state.
            activation: relu, or tanh.
            u_max: largest modulus of a recurrent weight; beyond it counts as that, with the
                gradient there. None for no bound; 2^(1/T) keeps T steps of a relu below 2.
            r_min: smallest initial modulus of a recurrent weight.
            r_max: largest initial modulus of a recurrent weight.
            biases: number of bias vectors of each gate.
            compute_dtype: type of matrix products, float32 or bfloat16; states, parameters and sums
                stay float32.
            rngs: source of the initial parameters.

        Raises:
            ValueError: if a value is out of range.
        """
        super().__init__(d_model, d_hidden, compute_dtype=compute_dtype, rngs=rngs)
        if activation not in STEPS:
            raise ValueError(f"activation must be {' or '.join(STEPS)}, got {activation!r}")
        if u_max is not None and not u_max > 0:
            raise ValueError(f"u_max must be above 0, or None, got {u_max}")
        self.activation, self.u_max = activation, u_max
        self.weight = nnx.Param(normal(rngs.params(), (d_model, d_hidden), 1e-4))
        self.bias = nnx.Param(jnp.zeros(d_hidden, jnp.float32)) if known_biases(biases) else None
        if not 0 <= r_min <= r_max <= 1:
            raise ValueError(
                "r_min and r_max must satisfy 0 <= r_min <= r_max <= 1, got "
                f"r_min = {r_min} and r_max = {r_max}"
            )
        u = jnp.full(d_hidden, r_max, jnp.float32)
        if r_min < r_max:
            u = jax.random.uniform(rngs.params(), u.shape, u.dtype, minval=r_min, maxval=r_max)
        self.u = RecurrentParam(u)

    def run(
        self, x: Float[Array, "B T D"], start: Float[Array, "B N"], options: dict[str, Any]
    ) -> Run:
        """See `ElementwiseLayer.run`."""
        u = self.u[...]
        if self.u_max is not None:
            u += jax.lax.stop_gradient(jnp.clip(u, -self.u_max, self.u_max) - u)
        read, u = self.inputs(x).astype(start.dtype), u.astype(start.dtype)
        h, last = run_units(STEPS[self.activation], u, read, start, options)
        return Run(h, last, {"state": h})


class IndRNNCell(IndRNN):
    """The same without a read-out."""

    reads_out: ClassVar[bool] = False
