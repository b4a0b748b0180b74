"""A QRNN that a summary of another sequence steers, and that may attend to that sequence.

Gates z = tanh(W_z * x + V_z s), and f, o and i likewise, with the summary s at all steps. With
attention the output is h_t = o_t (W_k k_t + W_c c_t), where k_t = sum_s alpha_ts m_s over the
states m_s of the other sequence, and alpha_ts = softmax_s(c_t . m_s). Nothing of it recurs, so all
steps run at once. Bradbury et al. 2016 (arXiv 1611.01576), "Encoder-Decoder Models".
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Integer, Key

from lru.layers.base import without_padding
from lru.layers.cell import uniform
from lru.layers.qrnn import QRNNCell, QRNNState
from lru.scan import pooled_scan
from lru.scan.methods import step_counts
from lru.scan.products import product


class QRNNDecoder(nnx.Module):
    """A cell with a summary, and attention if it is asked for.

    Attributes:
        cell: the recurrence.
        weight_summary: V of all gates side by side [E, G N].
        weight_attended: W_k [N, N]; None without attention.
        weight_state: W_c [N, N]; None without attention.
    """

    def __init__(
        self,
        d_model: int,
        d_hidden: int,
        d_summary: int,
        *,
        attention: bool,
        rngs: nnx.Rngs,
        **options: Any,
    ):
        """Draw the parameters.

        Args:
            d_model: width D of the inputs.
            d_hidden: width N of the state, and of the states that are attended to.
            d_summary: width E of the summary.
            attention: whether to attend, which is defined for the gates fo.
            rngs: source of the initial parameters.
            options: those of `QRNN`.
        """
        self.cell = QRNNCell(d_model, d_hidden, rngs=rngs, **options)
        if attention and self.cell.gates != "fo":
            raise ValueError(f"attention is defined for the gates fo, got {self.cell.gates}")
        shape = (d_summary, self.cell.n_gates * d_hidden)
        self.weight_summary = nnx.Param(uniform(rngs.params(), shape, d_summary))
        self.weight_attended, self.weight_state = (
            nnx.Param(uniform(rngs.params(), (d_hidden, d_hidden), d_hidden)) if attention else None
            for _ in range(2)
        )

    def initial_state(self, batch_size: int) -> QRNNState:
        """Zeros."""
        return self.cell.initial_state(batch_size)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        summary: Float[Array, "B E"],
        memory: Float[Array, "B S N"],
        state: QRNNState | None = None,
        *,
        lengths: Integer[Array, " B"] | None = None,
        memory_lengths: Integer[Array, " B"] | None = None,
        key: Key[Array, ""] | None = None,
    ) -> tuple[Float[Array, "B T N"], QRNNState]:
        """Run over a sequence.

        Args:
            x: inputs.
            summary: of the other sequence.
            memory: states of the other sequence.
            state: where to start.
            lengths: number of valid steps of each row of x; outputs at padding are zero.
            memory_lengths: the same of the memory.
            key: source of the zoneout; None for none.

        Returns:
            Outputs of the type of x, and the state after the last valid step.
        """
        cell = self.cell
        pre_activations, c, options, window = cell.problem(x, state, lengths, None, False)
        memory_lengths = step_counts(memory_lengths, memory.shape[1])
        steered = product(summary, self.weight_summary[...], cell.compute_dtype)
        pre_activations += steered.astype(pre_activations.dtype)[:, None]
        if cell.bias is not None:
            pre_activations += cell.bias[...].astype(pre_activations.dtype)
        attention = self.weight_attended is not None
        # With attention the output gate waits.
        mixed = pre_activations[..., : 2 * cell.d_hidden] if attention else pre_activations
        h, c = pooled_scan(
            mixed,
            None,
            c,
            gates="f" if attention else cell.gates,
            zoneout=cell.zoneout_mask(pre_activations, key),
            method=cell.scan_method,
            **options,
        )
        if self.weight_attended is not None and self.weight_state is not None:
            attended = attend(h, without_padding(memory, memory_lengths), memory_lengths)[0]
            gate = jax.nn.sigmoid(pre_activations[..., 2 * cell.d_hidden :])
            pairs = ((attended, self.weight_attended), (h, self.weight_state))
            attended, h = (product(z, W[...], cell.compute_dtype) for z, W in pairs)
            h = gate * (attended + h)
        return without_padding(h, options["lengths"]).astype(x.dtype), QRNNState(c, window)


def attend(
    queries: Float[Array, "B T N"],
    memory: Float[Array, "B S N"],
    memory_lengths: Integer[Array, " B"] | None,
) -> tuple[Float[Array, "B T N"], Float[Array, "B T S"]]:
    """Means of the memory, and their weights, softmax over the valid steps of the products.

    A row without valid steps attends to its first one.
    """
    scores = jnp.einsum("btn,bsn->bts", queries, memory)
    valid: Bool[Array, "B 1 S"] | None = None
    if memory_lengths is not None:
        valid = jnp.arange(memory.shape[1]) < jnp.maximum(memory_lengths, 1)[:, None, None]
    weights = jax.nn.softmax(scores, axis=-1, where=valid)
    return jnp.einsum("bts,bsn->btn", weights, memory), weights
