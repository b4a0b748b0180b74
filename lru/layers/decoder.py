"""A QRNN that a summary of another sequence steers, and that may attend to that sequence.

Gates z = tanh(W_z * x + V_z s), and f, o and i likewise, with the summary s at all steps. With
attention the output is h_t = o_t (W_k k_t + W_c c_t), where k_t = sum_s alpha_st m_s over the
states m of the other sequence and alpha_st = softmax_s(c_t . m_s). Nothing of it recurs, so all
steps run at once. Bradbury et al. 2016 (arXiv 1611.01576), section 2.1, "Encoder-Decoder Models".
"""

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from lru.layers.cell import uniform
from lru.layers.qrnn import QRNN, QRNNState


class QRNNDecoderCell(QRNN):
    """A QRNN with a summary, and with attention if it is asked for; options as for `QRNN`.

    Attributes:
        weight_summary: V of each gate [G, E, N].
        weight_attended: W_k [N, N]; None without attention.
        weight_state: W_c [N, N]; None without attention.
    """

    reads_out: ClassVar[bool] = False

    def __init__(
        self,
        d_model: int,
        d_hidden: int,
        d_summary: int,
        *,
        attention: bool,
        rngs: nnx.Rngs,
        **options,
    ):
        """Draw the parameters.

        Args:
            d_model: width D of the inputs.
            d_hidden: width N of the state, and of the states that are attended to.
            d_summary: width E of the summary.
            attention: whether to attend.
            rngs: source of the initial parameters.
            options: those of `QRNN`.
        """
        super().__init__(d_model, d_hidden, rngs=rngs, **options)
        shape = (len(self.gates), d_summary, d_hidden)
        self.weight_summary = nnx.Param(uniform(rngs.params(), shape, d_summary))
        square = (d_hidden, d_hidden)
        self.weight_attended, self.weight_state = (
            nnx.Param(uniform(rngs.params(), square, d_hidden)) if attention else None
            for _ in range(2)
        )
