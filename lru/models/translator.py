"""Encoder and decoder of QRNNs with attention: from one sequence to the next token of another.

Each layer of the decoder is steered by the last output of the encoder's layer of the same height,
and its last layer attends to all outputs of the encoder's last layer. Bradbury et al. 2016 (arXiv
1611.01576), section 3.3, where the first layers of both have a window of 6 and the others of 2.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Integer, Key

from lru.layers import QRNNCell, QRNNState
from lru.layers.qrnn_decoder import QRNNDecoder
from lru.scan.methods import step_counts

FIRST_WINDOW, WINDOW = 6, 2


class Encoded(NamedTuple):
    """What the decoder knows of a source.

    Attributes:
        summaries: last output of each layer [B, N].
        memory: outputs of the last layer [B, S, N].
        lengths: number of valid steps of each row of the memory.
    """

    summaries: list[Float[Array, "B N"]]
    memory: Float[Array, "B S N"]
    lengths: Integer[Array, " B"] | None


class Translator(nnx.Module):
    """Scores of the next target token, given a source and the target tokens so far.

    Attributes:
        embed_source, embed_target: embeddings of both vocabularies, of width N.
        encoder, decoder: the layers.
        head: read-out to scores.
    """

    def __init__(
        self,
        source_vocab: int,
        target_vocab: int,
        d_hidden: int,
        n_layers: int = 4,
        *,
        dropout: float = 0.0,
        rngs: nnx.Rngs,
        **options: Any,
    ):
        """Build the network.

        Args:
            source_vocab: number of source tokens.
            target_vocab: number V of target tokens.
            d_hidden: width N of embeddings and states.
            n_layers: number of layers of the encoder, and of the decoder.
            dropout: rate of dropout on the inputs of each layer.
            rngs: source of the initial parameters.
            options: those of `QRNN` but the window.

        Raises:
            ValueError: if there is no layer, or an option is refused.
        """
        if n_layers < 1:
            raise ValueError(f"n_layers must be at least 1, got {n_layers}")
        self.embed_source, self.embed_target = (
            nnx.Embed(size, d_hidden, rngs=rngs) for size in (source_vocab, target_vocab)
        )
        windows = [FIRST_WINDOW] + [WINDOW] * (n_layers - 1)
        self.encoder = nnx.List(
            QRNNCell(d_hidden, d_hidden, window=window, rngs=rngs, **options) for window in windows
        )
        self.decoder = nnx.List(
            QRNNDecoder(
                *(d_hidden, d_hidden, d_hidden),
                attention=layer == n_layers - 1,
                window=window,
                rngs=rngs,
                **options,
            )
            for layer, window in enumerate(windows)
        )
        self.dropout = nnx.Dropout(dropout)
        self.head = nnx.Linear(d_hidden, target_vocab, rngs=rngs)

    def encode(
        self,
        source: Integer[Array, "B S"],
        lengths: Integer[Array, " B"] | None = None,
        *,
        key: Key[Array, ""] | None = None,
    ) -> Encoded:
        """Read the source; `key` draws dropout and zoneout, None for none."""
        lengths = step_counts(lengths, source.shape[1])
        keys = _keys(key, len(self.encoder))
        h, summaries = self.embed_source(source), []
        for cell, (drop_key, cell_key) in zip(self.encoder, keys, strict=True):
            h, _ = cell(self._drop(h, drop_key), lengths=lengths, key=cell_key)
            summaries.append(_last(h, lengths))
        return Encoded(summaries, h, lengths)

    def decode(
        self,
        target: Integer[Array, "B T"],
        encoded: Encoded,
        state: Sequence[QRNNState | None] | None = None,
        *,
        lengths: Integer[Array, " B"] | None = None,
        key: Key[Array, ""] | None = None,
    ) -> tuple[Float[Array, "B T V"], list[QRNNState]]:
        """Score the tokens that follow.

        Args:
            target: the tokens so far, or those since `state`: one at a time in generation.
            encoded: the source.
            state: where to start; None for the start of the target.
            lengths: number of valid tokens of each row.
            key: source of dropout and zoneout; None for none.

        Returns:
            Scores (logits) of the token after each one, and the state after the last.
        """
        keys = _keys(key, len(self.decoder))
        before = [None] * len(self.decoder) if state is None else state
        h, after = self.embed_target(target), []
        for layer, summary, start, (drop_key, layer_key) in zip(
            self.decoder, encoded.summaries, before, keys, strict=True
        ):
            h, new = layer(
                self._drop(h, drop_key),
                summary,
                encoded.memory,
                start,
                lengths=lengths,
                memory_lengths=encoded.lengths,
                key=layer_key,
            )
            after.append(new)
        return self.head(h), after

    def __call__(
        self,
        source: Integer[Array, "B S"],
        target: Integer[Array, "B T"],
        *,
        source_lengths: Integer[Array, " B"] | None = None,
        lengths: Integer[Array, " B"] | None = None,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "B T V"]:
        """Read the source and score every next token of the target, all at once."""
        keys = (None, None) if key is None else jax.random.split(key)
        encoded = self.encode(source, source_lengths, key=keys[0])
        return self.decode(target, encoded, lengths=lengths, key=keys[1])[0]

    def _drop(self, x: Float[Array, "B T N"], key: Key[Array, ""] | None) -> Float[Array, "B T N"]:
        return self.dropout(x, deterministic=key is None, rngs=key)


def _last(h: Float[Array, "B S N"], lengths: Integer[Array, " B"] | None) -> Float[Array, "B N"]:
    """The output of each row at its last valid step; zero, as at padding, if there is none."""
    if lengths is None:
        return h[:, -1]
    return jnp.take_along_axis(h, jnp.maximum(lengths - 1, 0)[:, None, None], axis=1)[:, 0]


def _keys(key: Key[Array, ""] | None, layers: int) -> Any:
    """Two keys a layer, or None for each."""
    return [(None, None)] * layers if key is None else jax.random.split(key, (layers, 2))
