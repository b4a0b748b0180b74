"""Long short-term memory: c_t = f_t c_{t-1} + i_t g_t, h_t = o_t tanh(c_t).

i, f, o = sigmoid and g = tanh of gates as in `gated.py`, in the order i, f, g, o, without
peepholes. Hochreiter & Schmidhuber 1997; the forget gate is that of Gers et al. 2000.
"""

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lru.layers.base import LAYERS
from lru.layers.gated import GatedRNN
from lru.scan import Gate, GatedCell, States, unforced


class LSTMState(NamedTuple):
    """State of an LSTM."""

    h: Float[Array, "B N"]
    c: Float[Array, "B N"]


def _forward(
    pre_activations: Float[Array, "B S"], before: States, gate: Gate = unforced
) -> tuple[States, States]:
    i, f, g, o = jnp.split(pre_activations, 4, axis=-1)
    i, f = gate("input_gate", jax.nn.sigmoid(i)), gate("forget_gate", jax.nn.sigmoid(f))
    g, o = gate("candidate", jnp.tanh(g)), gate("output_gate", jax.nn.sigmoid(o))
    c = f * before[1] + i * g
    return (i, f, g, o), (o * jnp.tanh(c), c)


def _backward(
    activations: States, before: States, after: States, gradient: States
) -> tuple[Float[Array, "B S"], States]:
    i, f, g, o = activations
    dh, dc = gradient
    squashed = jnp.tanh(after[1])
    dc = dc + dh * o * (1 - squashed**2)
    gradients = [
        dc * g * i * (1 - i),
        dc * before[1] * f * (1 - f),
        dc * i * (1 - g**2),
        dh * squashed * o * (1 - o),
    ]
    return jnp.concatenate(gradients, axis=-1), (jnp.zeros_like(dh), dc * f)


@LAYERS.register("lstm")
class LSTM(GatedRNN):
    """Long Short-Term Memory, as in PyTorch; gates i, f, g, o."""

    cell = GatedCell(_forward, _backward, activations=4, native="lstm")
    state_type = LSTMState
    state_names = ("output", "state")
    gate_names = ("input_gate", "forget_gate", "candidate", "output_gate")
    n_gates = 4

    @property
    def chrono_signs(self) -> dict[int, float]:
        """Those of the forget gate, and against them those of the input gate."""
        return {1: 1.0, 0: -1.0}


class LSTMCell(LSTM):
    """The same without a read-out."""

    reads_out: ClassVar[bool] = False
