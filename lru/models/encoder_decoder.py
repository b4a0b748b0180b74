"""Encoder and decoder in one: a body reads symbols, and from its state alone says them again.

Both phases have the same weights and the same embedding, so that the state after the last symbol is
all that passes between them: the network of the repeat task (Csordás et al. 2024, arXiv
2408.10920).
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Inexact, Int, Integer, Key

from lru.layers.base import State
from lru.layers.cell import uniform_linear
from lru.models.body import make_body
from lru.models.config import ModelConfig


def after_start(symbols: Integer[Array, "B T"], start: int) -> Int[Array, "B T"]:
    """Inputs of a decoder: the id of the start, then at every step the symbol before."""
    first = jnp.full((symbols.shape[0], 1), start)
    return jnp.concatenate([first, symbols[:, :-1].astype(int)], axis=1)


class EncoderDecoder(nnx.Module):
    """Reads symbols, then predicts as many, one after the other.

    Attributes:
        embedding: of the V symbols, of the start (id V) and, without inputs, of the constant input
            after it (V + 1) [V + 1 or V + 2, D].
        body: recurrent layers.
        head: read-out to the scores of the symbols.
        no_input: whether the decoder reads a constant in place of the symbol before.
        preferred_body: the body that `auto` means where the layer has it.
    """

    preferred_body = "cells"

    def __init__(
        self, config: ModelConfig, n_symbols: int, *, no_input: bool = False, rngs: nnx.Rngs
    ):
        """Build the network.

        Args:
            config: the network.
            n_symbols: number V of symbols.
            no_input: let the decoder read a constant in place of the symbol before.
            rngs: source of the initial parameters.

        Raises:
            ValueError: if the body runs backwards in time.
        """
        rows, width = n_symbols + 1 + no_input, config.d_model
        self.embedding = nnx.Param(jax.random.normal(rngs.params(), (rows, width)))
        self.body = make_body(config, preferred=self.preferred_body, rngs=rngs)
        if not self.body.causal:
            raise ValueError("bidirectional must be False where a state is decoded, got True")
        self.head = uniform_linear(width, n_symbols, rngs=rngs)
        self.no_input = no_input

    @property
    def n_symbols(self) -> int:
        """Number V of symbols."""
        return self.head.bias[...].shape[0]  # pyright: ignore[reportOptionalSubscript]

    def __call__(
        self,
        symbols: Integer[Array, "B T"],
        *,
        lengths: Integer[Array, " B"] | None = None,
        train: bool = False,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "B T V"]:
        """Scores (logits) of the symbols to repeat, each after the true ones before it.

        Args:
            symbols: ids from 0; anything at padding.
            lengths: number of symbols of each row; None if all are valid.
            train: training mode of the norms.
            key: source of dropout and noise; None for none.
        """
        keys = (None, None) if key is None else jax.random.split(key)
        state = self.encode(symbols, lengths=lengths, train=train, key=keys[0])
        return self.decode(state, symbols, lengths=lengths, train=train, key=keys[1])

    def encode(
        self,
        symbols: Integer[Array, "B T"],
        *,
        lengths: Integer[Array, " B"] | None = None,
        train: bool = False,
        key: Key[Array, ""] | None = None,
    ) -> list[State]:
        """The state after the last symbol of each row; arguments as for a call."""
        x = self.embedding[...][symbols]
        return self.body(x, lengths=lengths, train=train, key=key)[1]

    def decode(
        self,
        state: list[State],
        symbols: Integer[Array, "B T"],
        *,
        lengths: Integer[Array, " B"] | None = None,
        train: bool = False,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "B T V"]:
        """Scores of as many symbols from a state; arguments as for a call."""
        x = self.embedding[...][self.decoder_inputs(symbols)]
        x, _ = self.body(x, state, lengths=lengths, train=train, key=key)
        return self.head(self.body.drop_outputs(x, key))

    def decoder_inputs(self, symbols: Integer[Array, "B T"]) -> Int[Array, "B T"]:
        """Ids that the decoder reads: the start, then the symbols before, or a constant."""
        inputs = after_start(symbols, self.n_symbols)
        return inputs.at[:, 1:].set(self.n_symbols + 1) if self.no_input else inputs

    def generate(self, state: list[State], steps: int) -> Int[Array, "B T"]:
        """The likeliest symbols from a state, each read before the next is said."""
        rows = jax.tree.leaves(state)[0].shape[0]

        def say(carry: tuple, _: None) -> tuple:
            state, before = carry
            x, state = self.body.step(self.embedding[...][before], state)
            said = self.head(x).argmax(axis=-1)
            read = jnp.full_like(said, self.n_symbols + 1) if self.no_input else said
            return (state, read), said

        start = (state, jnp.full(rows, self.n_symbols))
        return jax.lax.scan(say, start, None, length=steps)[1].T

    def observe(
        self, symbols: Integer[Array, "B T"], lengths: Integer[Array, " B"] | None = None
    ) -> list[dict[str, Inexact[Array, "B 2*T N"]]]:
        """States and gates inside each layer by name: while it reads, then while it repeats.

        Args:
            symbols: ids from 0.
            lengths: number of symbols of each row; None if all are valid.

        Returns:
            Of each layer, the T steps of the encoder followed by those of the decoder.
        """
        table, state = self.embedding[...], self.encode(symbols, lengths=lengths)
        read = self.body.observe(table[symbols], lengths=lengths)
        inputs = table[self.decoder_inputs(symbols)]
        said = self.body.observe(inputs, state, lengths=lengths)
        return [
            {name: jnp.concatenate([x, said[k][name]], axis=1) for name, x in layer.items()}
            for k, layer in enumerate(read)
        ]
