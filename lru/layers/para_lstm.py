"""LSTM whose units read themselves alone: c_t = f_t c_{t-1} + (1 - f_t) z_t, h_t = o_t tanh(c_t).

f = sigmoid(a_f h_{t-1} + p_f c_{t-1} + B_f x_t + b_f), z_t = tanh(a_z h_{t-1} + B_z x_t + b_z) and
o = sigmoid(a_o h_{t-1} + p_o c_t + B_o x_t + b_o), vectors a and p (peepholes), in the order f, o,
z. Danieli et al. 2025 (arXiv 2510.21450), with the initial values of its code.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lru.layers.base import LAYERS
from lru.layers.para import Fields, ParaRNN, UnitRecurrence


class ParaLSTMState(NamedTuple):
    """State of a ParaLSTM."""

    h: Float[Array, "B N"]
    c: Float[Array, "B N"]


def _forward(vectors: Any, x: Float[Array, "*rows 3 N"], before: Fields) -> tuple[Fields, Fields]:
    ((a_f, a_o, a_z), (p_f, p_o)), (h, c) = vectors, before
    f = jax.nn.sigmoid(x[..., 0, :] + a_f * h + p_f * c)
    z = jnp.tanh(x[..., 2, :] + a_z * h)
    c = f * c + (1 - f) * z
    o = jax.nn.sigmoid(x[..., 1, :] + a_o * h + p_o * c)
    return (f, o, z), (o * jnp.tanh(c), c)


@LAYERS.register("para-lstm")
class ParaLSTM(ParaRNN):
    """LSTM with diagonal recurrent weights and peepholes, fast to run for all steps at once."""

    recurrence = UnitRecurrence(_forward)
    state_type = ParaLSTMState
    state_names = ("output", "state")
    gate_names = ("forget_gate", "output_gate", "candidate")
    n_peepholes = 2
