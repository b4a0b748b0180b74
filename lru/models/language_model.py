"""Language model: embedding, recurrent body, head; each token predicted from those before it.

The body is a plain stack of cells, as in AWD-LSTM (arXiv 1708.02182) and in the QRNN paper (arXiv
1611.01576, section 3.2), or the residual blocks of the classifiers, which suit linear recurrences.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
from flax import nnx
from jaxtyping import Array, Bool, Float, Inexact, Integer, Key

from lru.layers.base import State
from lru.layers.dropout import drop_features, embed
from lru.models.body import make_body
from lru.models.config import ModelConfig, check_not_negative, check_rates
from lru.models.heads import AdaptiveHead, SoftmaxHead


@dataclass(frozen=True)
class LanguageModelOptions:
    """Options of a language model beside those of its body."""

    tied: bool = True
    """Tie the weights of the softmax to the embedding."""
    cutoffs: str | None = None
    """Use an adaptive softmax whose clusters of rarer words start at these ids, separated by
    commas."""
    p_embedding: float = 0.0
    """Dropout rate of whole words in the embedding matrix."""
    p_input: float = 0.0
    """Dropout rate of the embedded words."""
    init_range: float = 0.1
    """Initial embeddings are uniform between plus and minus this."""

    def __post_init__(self):
        """Check the ranges.

        Raises:
            ValueError: if a value is out of range.
        """
        check_rates(self, "p_embedding", "p_input")
        check_not_negative(self, "init_range")
        if any(not part.strip().isdigit() for part in (self.cutoffs or "0").split(",")):
            raise ValueError(f"cutoffs must be ids separated by commas, got {self.cutoffs!r}")

    @property
    def cutoff_ids(self) -> list[int]:
        """The first ids of the clusters of an adaptive softmax."""
        return [int(part) for part in self.cutoffs.split(",")] if self.cutoffs else []


class Features(NamedTuple):
    """Features that the body makes of the tokens up to each one.

    Attributes:
        raw: outputs of its last layer [B, T, D].
        dropped: the same after dropout, which the head reads.
    """

    raw: Float[Array, "B T D"]
    dropped: Float[Array, "B T D"]


class LanguageModel(nnx.Module):
    """Probabilities of the next token.

    Attributes:
        embedding: of the tokens [V, D].
        body: recurrent layers.
        head: read-out; see `lru.models.heads`.
        preferred_body: the body that `auto` means where the layer has it.
    """

    preferred_body: ClassVar[str] = "cells"

    def __init__(
        self,
        config: ModelConfig,
        vocab_size: int,
        options: LanguageModelOptions | None = None,
        *,
        rngs: nnx.Rngs,
    ):
        """Build the network.

        Args:
            config: the network.
            vocab_size: number V of tokens.
            options: the rest; None for the defaults.
            rngs: source of the initial parameters.

        Raises:
            ValueError: if the configuration has no such language model.
        """
        options = options or LanguageModelOptions()
        scale, shape = options.init_range, (vocab_size, config.d_model)

        def table() -> nnx.Param:
            return nnx.Param(jax.random.uniform(rngs.params(), shape, minval=-scale, maxval=scale))

        self.embedding = table()
        self.body = make_body(config, preferred=self.preferred_body, rngs=rngs)
        if not self.body.causal:
            raise ValueError("bidirectional must be False in a language model, got True")
        if options.cutoffs is None:
            self.head = SoftmaxHead(self.embedding if options.tied else table())
        else:
            tied = self.embedding if options.tied else None
            self.head = AdaptiveHead(tied, shape, options.cutoff_ids, rngs=rngs)
        self.rates = (options.p_embedding, options.p_input, config.p_dropout)
        self.locked = config.locked_dropout

    def initial_state(self, batch_size: int) -> list[State]:
        """The state before the first token."""
        return self.body.initial_state(batch_size)

    def features(
        self,
        tokens: Integer[Array, "B T"],
        state: list[State] | None = None,
        *,
        lengths: Integer[Array, " B"] | None = None,
        resets: Bool[Array, "B T"] | None = None,
        key: Key[Array, ""] | None = None,
    ) -> tuple[Features, list[State]]:
        """Features that the head reads.

        Args:
            tokens: their ids.
            state: what earlier tokens left; None to start afresh.
            lengths: number of valid tokens of each row; None if all are valid.
            resets: True where a row starts afresh.
            key: source of dropout and noise in training; None to evaluate.

        Returns:
            Features, and the state after the last valid token.

        Raises:
            ValueError: if an argument has the wrong shape.
        """
        if tokens.ndim != 2:
            raise ValueError(f"tokens have shape {tokens.shape}, but [B, T] is allowed")
        keys = [None] * 4 if key is None else jax.random.split(key, 4)
        p_embedding, p_input, p_output = self.rates
        x = embed(self.embedding[...], tokens, p_embedding, keys[0])
        x = drop_features(x, p_input, keys[1], locked=self.locked)
        raw, state = self.body(
            x, state, lengths=lengths, resets=resets, train=key is not None, key=keys[2]
        )
        return Features(raw, drop_features(raw, p_output, keys[3], locked=self.locked)), state

    def __call__(
        self,
        tokens: Integer[Array, "B T"],
        state: list[State] | None = None,
        *,
        lengths: Integer[Array, " B"] | None = None,
        resets: Bool[Array, "B T"] | None = None,
        train: bool = False,
        key: Key[Array, ""] | None = None,
    ) -> tuple[Float[Array, "B T V"], list[State]]:
        """Log probabilities of the token after each one, and the state; see `features`.

        Args:
            tokens: their ids.
            state: what earlier tokens left.
            lengths: number of valid tokens of each row.
            resets: True where a row starts afresh.
            train: whether `key` is used.
            key: source of dropout and noise.
        """
        features, state = self.features(
            tokens, state, lengths=lengths, resets=resets, key=key if train else None
        )
        return self.head.log_probabilities(features.dropped), state

    def observe(
        self, tokens: Integer[Array, "B T"], lengths: Integer[Array, " B"] | None = None
    ) -> list[dict[str, Inexact[Array, "B T N"]]]:
        """Record what happens inside each layer; see `Body.observe`.

        Args:
            tokens: their ids.
            lengths: number of valid tokens of each row.
        """
        return self.body.observe(self.embedding[...][tokens], lengths=lengths)

    def step(
        self, tokens_t: Integer[Array, " B"], state: list[State]
    ) -> tuple[Float[Array, "B V"], list[State]]:
        """Take in one token, in evaluation mode; log probabilities of the next one.

        Raises:
            NoStepError: if the recurrences have no step mode.
        """
        h, state = self.body.step(self.embedding[...][tokens_t], state)
        return self.head.log_probabilities(h), state
