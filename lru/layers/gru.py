"""Gated recurrent unit: h_t = (1 - z_t) n_t + z_t h_{t-1}.

r, z = sigmoid of gates as in `gated.py`, n_t = tanh(W_in x_t + b_in + r_t (W_hn h_{t-1} + b_hn)),
in the order r, z, n. Cho et al. 2014 (arXiv 1406.1078), with the reset gate after the matrix as in
the fast versions (PyTorch, cuDNN).
"""

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lru.layers.base import LAYERS
from lru.layers.gated import GatedRNN
from lru.scan import GatedCell, States


class GRUState(NamedTuple):
    """State of a GRU."""

    h: Float[Array, "B N"]


def _forward(pre_activations: Float[Array, "B S"], before: States) -> tuple[States, States]:
    n, r, z, recurrent = jnp.split(pre_activations, 4, axis=-1)
    r, z = jax.nn.sigmoid(r), jax.nn.sigmoid(z)
    n = jnp.tanh(n + r * recurrent)
    return (r, z, n, recurrent), ((1 - z) * n + z * before[0],)


def _backward(
    activations: States, before: States, after: States, gradient: States
) -> tuple[Float[Array, "B S"], States]:
    r, z, n, recurrent = activations
    (dh,) = gradient
    dn = dh * (1 - z) * (1 - n**2)
    gradients = [dn, dn * recurrent * r * (1 - r), dh * (before[0] - n) * z * (1 - z), dn * r]
    return jnp.concatenate(gradients, axis=-1), (dh * z,)


@LAYERS.register("gru")
class GRU(GatedRNN):
    """Gated Recurrent Unit, as in PyTorch; gates r, z, n."""

    cell = GatedCell(_forward, _backward, activations=4, native="gru")
    state_type = GRUState
    state_names = ("state",)
    gate_names = ("reset_gate", "update_gate", "candidate")
    n_gates = 3
    apart = 1


class GRUCell(GRU):
    """The same without a read-out."""

    reads_out: ClassVar[bool] = False
