"""Elman network: h_t = tanh(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh).

Elman 1990 (Finding structure in time, Cognitive Science 14), with the weights of `gated.py`; the
tanh is its one gate.
"""

from typing import ClassVar, NamedTuple

import jax.numpy as jnp
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


@LAYERS.register("elman")
class Elman(GatedRNN):
    """Elman network, as `RNN` in PyTorch."""

    cell = GatedCell(_forward, _backward, activations=0, native="elman")
    state_type = ElmanState
    state_names = ("state",)
    gate_names = ()
    n_gates = 1


class ElmanCell(Elman):
    """The same without a read-out."""

    reads_out: ClassVar[bool] = False
