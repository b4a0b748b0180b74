"""Gated recurrent unit: h_t = (1 - z_t) n_t + z_t h_{t-1}.

r, z = sigmoid of gates as in `gated.py`, n_t = tanh(W_in x_t + b_in + r_t (W_hn h_{t-1} + b_hn)),
in the order r, z, n. Cho et al. 2014 (arXiv 1406.1078), with the reset gate after the matrix as in
the fast versions (PyTorch, cuDNN). Without its reset gate r = 1, without its update gate z = 0.
"""

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from lru.layers.base import LAYERS
from lru.layers.gated import GatedRNN
from lru.scan import Gate, GatedCell, States, unforced

# A pre-activation whose sigmoid is 1, and that of its negative 0, in every type of floats.
OPEN = 1000.0


class GRUState(NamedTuple):
    """State of a GRU."""

    h: Float[Array, "B N"]


def _forward(
    pre_activations: Float[Array, "B S"], before: States, gate: Gate = unforced
) -> tuple[States, States]:
    n, r, z, recurrent = jnp.split(pre_activations, 4, axis=-1)
    r, z = gate("reset_gate", jax.nn.sigmoid(r)), gate("update_gate", jax.nn.sigmoid(z))
    n = gate("candidate", jnp.tanh(n + r * recurrent))
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
    """Gated Recurrent Unit, as in PyTorch; gates r, z, n.

    Attributes:
        use_reset, use_update: the options; a gate that is not used has no weights.
    """

    cell = GatedCell(_forward, _backward, activations=4, native="gru")
    state_type = GRUState
    state_names = ("state",)
    gate_names = ("reset_gate", "update_gate", "candidate")
    n_gates = 3
    apart = 1

    def __init__(
        self,
        d_model: int,
        d_hidden: int,
        *,
        use_reset: bool = True,
        use_update: bool = True,
        biases: int = 2,
        chrono: int | None = None,
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
            use_reset: let a gate scale what the candidate reads of the state; without, it reads all
                of it.
            use_update: let a gate keep a share of the state; without, the candidate is the state.
            chrono: draw biases of update gates for memories of up to so many steps; None draws them
                as all others.
            rngs: source of the initial parameters.
        """
        if chrono is not None and not use_update:
            raise ValueError(f"chrono must be None without an update gate, got {chrono}")
        self.use_reset, self.use_update = use_reset, use_update
        super().__init__(
            d_model,
            d_hidden,
            biases=biases,
            chrono=chrono,
            time_method=time_method,
            newton_iterations=newton_iterations,
            newton_damping=newton_damping,
            compute_dtype=compute_dtype,
            rngs=rngs,
        )

    @property
    def chrono_signs(self) -> dict[int, float]:
        """Those of the update gate, which follows the reset gate."""
        return {int(self.use_reset): 1.0}

    @property
    def constant_gates(self) -> dict[int, float]:
        """See `GatedRNN.constant_gates`."""
        switches = ((self.use_reset, OPEN), (self.use_update, -OPEN))
        return {gate: value for gate, (used, value) in enumerate(switches) if not used}


class GRUCell(GRU):
    """The same without a read-out."""

    reads_out: ClassVar[bool] = False
