"""Language modelling: cross-entropy of each token given those before it, state carried.

In training alpha mean(d^2) + beta mean((h_t - h_{t-1})^2) may be added, of the outputs h of the
body and d of them after dropout (AR and TAR; Merity et al. 2017, arXiv 1708.02182, section 4.6).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Key

from lru.batches import DataConfig, StreamFeed, Streams, TextBatch
from lru.dataloaders import Card, Prepared, Ragged, Split
from lru.dataloaders.sets.corpora import boundary
from lru.layers.base import State
from lru.models import LanguageModel, LanguageModelOptions, ModelConfig
from lru.models.config import check_not_negative
from lru.models.language_model import Features
from lru.tasks.base import TASKS, Outcome, Task
from lru.tasks.metrics import Mean, Metric

_LARGEST_LOG = 700.0
"""Of a perplexity that is still a number."""


@dataclass(frozen=True)
class LanguageModellingOptions(LanguageModelOptions):
    """Options of language modelling."""

    ar: float = 0.0
    """Activation regularisation: weight of the mean square of the outputs, in training."""
    tar: float = 0.0
    """Temporal activation regularisation: weight of the mean square of their changes in time."""
    bptt: int = 70
    """Truncated BPTT length: tokens through which gradients flow; the state is carried on."""
    variable_bptt: bool = False
    """Draw the length of each batch around bptt, and scale the learning rate with it, as AWD-LSTM
    does."""
    eval_batch_size: int = 10
    """Batch size of evaluations; 1 reads the text as one sequence."""

    def __post_init__(self):
        """Check the ranges.

        Raises:
            ValueError: if a value is out of range.
        """
        super().__post_init__()
        check_not_negative(self, "ar", "tar")
        for name in ("bptt", "eval_batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


class Evaluated(NamedTuple):
    """Figures of each token of a batch in an evaluation.

    Attributes:
        nll: minus its log probability [B, T].
        hidden: outputs of the body that it was predicted from [B, T, D].
        carry: the state after the batch.
    """

    nll: Float[Array, "B T"]
    hidden: Float[Array, "B T D"]
    carry: list[State]


@TASKS.register("language_modelling")
class LanguageModelling(Task):
    """The next token at each step."""

    Options = LanguageModellingOptions
    metrics = {"nll": Mean}  # noqa: RUF012
    objective = "nll"
    preferred_body = LanguageModel.preferred_body

    def __init__(
        self, card: Card, model: ModelConfig, options: LanguageModellingOptions | None = None
    ):
        """Join a text and a network; see `Task`.

        Raises:
            ValueError: if the data is no text.
        """
        super().__init__(card, model, options)
        if card.kind != "text":
            raise ValueError(
                f"the data of language modelling must be text, but those of {card.name} are "
                f"{card.kind}"
            )

    @classmethod
    def suits(cls, card: Card) -> bool:
        """See `Task.suits`."""
        return card.kind == "text"

    @classmethod
    def steps_to_learn_from(cls, card: Card, options: LanguageModellingOptions) -> int:
        """Those of truncated backpropagation."""
        del card
        return options.bptt

    def sources(
        self, data: Prepared, config: DataConfig, *, seed: int, on_device: bool | None
    ) -> dict[str, StreamFeed]:
        """See `Task.sources`: parallel streams.

        Raises:
            ValueError: if a text has fewer tokens than streams, or is to live on the device.
        """
        if on_device:
            raise ValueError(
                f"on_device must be False for {self.card.name}, whose batches are small, and so "
                "steps_per_call 1; got True"
            )
        return {
            name: StreamFeed(self.streams(split, config, seed if name == "train" else None))
            for name, split in data.splits.items()
        }

    def streams(self, text: Split, config: DataConfig, seed: int | None = None) -> Streams:
        """The batches of a text, in training with a seed, else in evaluation."""
        options = self.options
        return Streams(
            cast(Ragged, text),
            options.eval_batch_size if seed is None else config.batch_size,
            options.bptt,
            boundary=boundary(self.card.vocabulary or []),
            seed=seed if options.variable_bptt else None,
            n_bounds=config.n_buckets,
        )

    def build_model(self, rngs: nnx.Rngs) -> LanguageModel:
        """A freshly initialised language model."""
        return LanguageModel(self.model, self.card.n_classes, self.options, rngs=rngs)

    def initial_carry(self, model: nnx.Module, batch_size: int) -> list[State]:
        """See `Task.initial_carry`: the state before the first token."""
        return cast(LanguageModel, model).initial_state(batch_size)

    def prepare(self, inputs: jax.Array) -> jax.Array:
        """See `Task.prepare`: ids as int32."""
        return inputs.astype(jnp.int32)

    def evaluated(self, model: nnx.Module, batch: TextBatch, carry: list[State]) -> Evaluated:
        """Each token by itself: for what combines a model with others, or looks at its features."""
        features, nll, carry = self._predict(cast(LanguageModel, model), batch, carry, None)
        return Evaluated(nll, features.raw, carry)

    def loss(
        self,
        model: nnx.Module,
        batch: TextBatch,
        carry: list[State],
        key: Key[Array, ""] | None,
        *,
        train: bool,
    ) -> Outcome:
        """See `Task.loss`; the metric is the cross-entropy without penalties [nats]."""
        features, nll, carry = self._predict(
            cast(LanguageModel, model), batch, carry, key if train else None
        )
        weight = jnp.sum(batch.weights)
        total = jnp.sum(nll * batch.weights)
        penalty = self._penalty(features, batch.weights > 0) if train else 0.0
        return Outcome(Mean(total + weight * penalty, weight), {"nll": Mean(total, weight)}, carry)

    def rate(self, batch: TextBatch) -> jax.Array:
        """See `Task.rate`: in proportion to the length of a chunk."""
        return batch.rate

    def report(self, metrics: Mapping[str, Metric]) -> dict[str, float]:
        """See `Task.report`: with perplexity, bits a token, and the number of tokens."""
        nll = cast(Mean, metrics["nll"])
        return super().report(metrics) | {
            "perplexity": math.exp(min(nll.result(), _LARGEST_LOG)),
            "bits": nll.result() / math.log(2),
            "tokens": float(nll.weight),
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
        options, raw = self.options, features.raw
        penalty = 0.0
        if options.ar:
            penalty += options.ar * _mean_square(features.dropped, valid)
        if options.tar:
            penalty += options.tar * _mean_square(raw[:, 1:] - raw[:, :-1], valid[:, 1:])
        return penalty


def _mean_square(x: Float[Array, "B T D"], valid: Bool[Array, "B T"]) -> Float[Array, ""]:
    squares: Any = jnp.where(valid[..., None], x**2, 0)
    return squares.sum() / jnp.maximum(valid.sum() * x.shape[-1], 1)
