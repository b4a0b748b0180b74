"""GRU whose units read themselves alone: h_t = (1 - z_t) h_{t-1} + z_t c_t.

z, r = sigmoid(a h_{t-1} + B x_t + b) and c_t = tanh(a_c h_{t-1} r_t + B_c x_t + b_c), vectors a, in
the order z, r, c. Danieli et al. 2025 (arXiv 2510.21450), with the initial values of its code.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lru.layers.base import LAYERS
from lru.layers.para import Fields, ParaRNN, UnitRecurrence


class ParaGRUState(NamedTuple):
    """State of a ParaGRU."""

    h: Float[Array, "B N"]


def _forward(vectors: Any, x: Float[Array, "*rows 3 N"], before: Fields) -> tuple[Fields, Fields]:
    ((a_z, a_r, a_c),), (h,) = vectors, before
    z = jax.nn.sigmoid(x[..., 0, :] + a_z * h)
    r = jax.nn.sigmoid(x[..., 1, :] + a_r * h)
    c = jnp.tanh(x[..., 2, :] + a_c * h * r)
    return (z, r, c), ((1 - z) * h + z * c,)


@LAYERS.register("para-gru")
class ParaGRU(ParaRNN):
    """GRU with diagonal recurrent weights, fast to run for all steps at once."""

    recurrence = UnitRecurrence(_forward)
    state_type = ParaGRUState
    state_names = ("state",)
    gate_names = ("update_gate", "reset_gate", "candidate")
    chrono_sign = -1.0

    @staticmethod
    def fan_out(d_hidden: int, n_heads: int) -> int:
        """That of all heads, as in the published code; see `ParaRNN.fan_out`."""
        return d_hidden
