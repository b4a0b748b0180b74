"""Elman network: h_t = tanh(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh), or relu in place of tanh.

Elman 1990 (Finding structure in time, Cognitive Science 14), with the weights of `gated.py`; the
nonlinearity is its one gate.
"""

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from lru.layers.base import LAYERS
from lru.layers.gated import GatedRNN
from lru.scan import Gate, GatedCell, States, unforced


class ElmanState(NamedTuple):
    """State of an Elman network."""

    h: Float[Array, "B N"]


def _forward(
    pre_activations: Float[Array, "B S"], before: States, gate: Gate = unforced
) -> tuple[States, States]:
    del before, gate  # The state is in the pre-activations, and there is no gate.
    return (), (jnp.tanh(pre_activations),)


def _backward(
    activations: States, before: States, after: States, gradient: States
) -> tuple[Float[Array, "B S"], States]:
    (h,), (dh,) = after, gradient
    return dh * (1 - h**2), (jnp.zeros_like(dh),)


def _forward_relu(
    pre_activations: Float[Array, "B S"], before: States, gate: Gate = unforced
) -> tuple[States, States]:
    del before, gate
    return (), (jax.nn.relu(pre_activations),)


def _backward_relu(
    activations: States, before: States, after: States, gradient: States
) -> tuple[Float[Array, "B S"], States]:
    (h,), (dh,) = after, gradient
    return jnp.where(h > 0, dh, 0), (jnp.zeros_like(dh),)


CELLS = {
    "tanh": GatedCell(_forward, _backward, activations=0, native="elman"),
    "relu": GatedCell(_forward_relu, _backward_relu, activations=0),
}


@LAYERS.register("elman")
class Elman(GatedRNN):
    """Elman network, as `RNN` in PyTorch."""

    cell = CELLS["tanh"]
    state_type = ElmanState
    state_names = ("state",)
    gate_names = ()
    n_gates = 1

    def __init__(
        self,
        d_model: int,
        d_hidden: int,
        *,
        activation: str = "tanh",
        biases: int = 2,
        time_method: str = "auto",
        newton_iterations: int = 100,
        newton_damping: float = 0.0,
        compute_dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        """Draw the parameters; options without a sentence here are those of `GatedRNN`.

        Args:
            d_model: width D of inputs and outputs.
            d_hidden: width N of the state.
            activation: tanh, or relu.
            rngs: source of the initial parameters.

        Raises:
            ValueError: if a value is out of range.
        """
        super().__init__(
            d_model,
            d_hidden,
            biases=biases,
            time_method=time_method,
            newton_iterations=newton_iterations,
            newton_damping=newton_damping,
            compute_dtype=compute_dtype,
            rngs=rngs,
        )
        if activation not in CELLS:
            raise ValueError(f"activation must be {' or '.join(CELLS)}, got {activation!r}")
        self.cell: Any = CELLS[activation]


class ElmanCell(Elman):
    """The same without a read-out."""

    reads_out: ClassVar[bool] = False
