"""Language modelling: cross-entropy of each token given those before it, state carried.

In training alpha mean(d^2) + beta mean((h_t - h_{t-1})^2) may be added, of the outputs h of the
body and d of them after dropout (AR and TAR; Merity et al. 2017, arXiv 1708.02182, section 4.6).
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Key

from lru.dataloaders import Card
from lru.layers.base import State
from lru.models import LanguageModel, ModelConfig
from lru.models.language_model import Features
from lru.streams import TextBatch
from lru.tasks.base import TASKS, Sums

_LARGEST_LOG = 700.0
"""Of a perplexity that is still a number."""


class Evaluated(NamedTuple):
    """What evaluation knows of each token of a batch.

    Attributes:
        nll: minus its log probability [B, T].
        hidden: outputs of the body that it was predicted from [B, T, D].
        carry: the state after the batch.
    """

    nll: Float[Array, "B T"]
    hidden: Float[Array, "B T D"]
    carry: list[State]


@TASKS.register("language_modelling")
class LanguageModelling:
    """The next token at each step."""

    metrics: tuple[str, ...] = ("nll",)
    objective = "nll"
    higher_is_better = False

    def __init__(self, card: Card, config: ModelConfig):
        """Join a text and a network.

        Raises:
            ValueError: if the data is no text, or if steps are to be pooled.
        """
        if card.kind != "text":
            raise ValueError(
                f"the data of language modelling must be text, but those of {card.name} are "
                f"{card.kind}"
            )
        if config.pooling not in ("auto", "none"):
            raise ValueError(
                f"pooling must be none for {card.name}, which has one target a step, "
                f"got {config.pooling!r}"
            )
        self._card, self._config = card, config

    def build_model(self, rngs: nnx.Rngs) -> LanguageModel:
        """A freshly initialised language model."""
        return LanguageModel(self._config, self._card.n_classes, rngs=rngs)

    def initial_carry(self, model: nnx.Module, batch_size: int) -> list[State]:
        """See `Carries.initial_carry`."""
        return cast(LanguageModel, model).initial_state(batch_size)

    def prepare(self, inputs: jax.Array) -> jax.Array:
        """See `Predicts.prepare`."""
        return inputs.astype(jnp.int32)

    def evaluated(self, model: nnx.Module, batch: TextBatch, carry: list[State]) -> Evaluated:
        """Each token by itself: for what combines a model with others, or looks at its features."""
        features, nll, carry = self._predict(cast(LanguageModel, model), batch, carry, None)
        return Evaluated(nll, features.raw, carry)

    def continued(
        self, model: nnx.Module, batch: TextBatch, carry: list[State], rng: Key[Array, ""] | None
    ) -> tuple[Float[Array, ""], Float[Array, ""], Sums, list[State]]:
        """See `Carries.continued`; the metric is the cross-entropy without penalties, in nats."""
        features, nll, carry = self._predict(cast(LanguageModel, model), batch, carry, rng)
        weight = jnp.sum(batch.weights)
        total = jnp.sum(nll * batch.weights)
        penalty = 0.0 if rng is None else self._penalty(features, batch.weights > 0)
        return total + weight * penalty, weight, {"nll": total}, carry

    def loss_and_metrics(
        self, model: nnx.Module, batch: TextBatch, rng: Key[Array, ""] | None
    ) -> tuple[Float[Array, ""], Float[Array, ""], Sums]:
        """See `Task.loss_and_metrics`; the batch is read as the start of its texts."""
        carry = self.initial_carry(model, len(batch.inputs))
        return self.continued(model, batch, carry, rng)[:3]

    def derived(self, means: Mapping[str, float], weight: float) -> dict[str, float]:
        """Perplexity, bits a token, and the number of tokens that they are means of."""
        nll = means["nll"]
        return {
            "perplexity": math.exp(min(nll, _LARGEST_LOG)),
            "bits": nll / math.log(2),
            "tokens": weight,
        }

    def _predict(
        self,
        model: LanguageModel,
        batch: TextBatch,
        carry: list[State],
        rng: Key[Array, ""] | None,
    ) -> tuple[Features, Float[Array, "B T"], list[State]]:
        fresh = self.initial_carry(model, len(batch.inputs))
        state = jax.tree.map(lambda new, old: jnp.where(batch.first, new, old), fresh, carry)
        features, state = model.features(
            self.prepare(batch.inputs), state, lengths=batch.lengths, key=rng
        )
        targets = self.prepare(batch.targets)
        return features, model.head.nll(features.dropped, targets), state

    def _penalty(self, features: Features, valid: Bool[Array, "B T"]) -> Float[Array, ""] | float:
        config, raw = self._config, features.raw
        penalty = 0.0
        if config.ar:
            penalty += config.ar * _mean_square(features.dropped, valid)
        if config.tar:
            penalty += config.tar * _mean_square(raw[:, 1:] - raw[:, :-1], valid[:, 1:])
        return penalty


def _mean_square(x: Float[Array, "B T D"], valid: Bool[Array, "B T"]) -> Float[Array, ""]:
    squares: Any = jnp.where(valid[..., None], x**2, 0)
    return squares.sum() / jnp.maximum(valid.sum() * x.shape[-1], 1)
