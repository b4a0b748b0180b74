"""Repetition: a network reads a sequence, then says it again from its state alone.

Scored by exact match, the share of rows of which every symbol is right. The decoder reads the true
symbols, so that the accuracy of single symbols is that of a teacher-forced model; whether a whole
row is right does not depend on that: up to its first mistake, a decoder that reads its own symbols
reads the same.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from lru.batches import Batch, DataConfig, Source
from lru.dataloaders import Card, Prepared
from lru.models import NETWORKS, EncoderDecoder, ModelConfig
from lru.tasks.base import TASKS, Outcome, Task
from lru.tasks.findings import Findings, Table
from lru.tasks.metrics import Mean

START = ">"
"""Name of the first input of a decoder."""

MOST_SHOWN = 100
"""Rows of a table of mistakes."""


class Repetition(Task):
    """Base of tasks in which a whole sequence is predicted from a state.

    Attributes:
        reads: the splits that are trained and evaluated on where the data has them, by the names
            that they go by in reports; all of any other data set.
    """

    metrics = {"exact_match": Mean, "token_accuracy": Mean}  # noqa: RUF012
    objective = "exact_match"
    higher_is_better = True
    # Those of the published experiments.
    defaults: ClassVar[Mapping[str, Any]] = {
        "batch_size": 256,
        "bucketing": False,
        "cosine_anneal": False,
        "lr_factor": 1.0,
        "weight_decay": 0.1,
        "eval_every": 1000,
        "log_every": 100,
    }
    reads: ClassVar[Mapping[str, str]] = {
        name: name for name in ("train", "val", "longer_1", "longer_2", "longer_1_norepeat")
    }

    def __init__(self, card: Card, model: ModelConfig, options: Any = None):
        """Join a data set and a network; see `Task`.

        Raises:
            ValueError: if the data are no rows of tokens.
        """
        super().__init__(card, model, options)
        if card.kind != "tokens":
            raise ValueError(
                f"dataset must be one of rows of tokens for this task, but the data of {card.name} "
                f"are {card.kind}"
            )

    def sources(
        self, data: Prepared, config: DataConfig, *, seed: int, on_device: bool | None
    ) -> Mapping[str, Source]:
        """See `Task.sources`: of the splits that this task reads."""
        if self.card.targets == "tokens":
            read = {name: split for name, split in self.reads.items() if split in data.splits}
            data = replace(data, splits={name: data.splits[read[name]] for name in read})
        return super().sources(data, config, seed=seed, on_device=on_device)

    @property
    def n_symbols(self) -> int:
        """Number V of symbols."""
        return (self.card.vocab_size or 1) - 1

    def words(self, inputs: np.ndarray) -> list[str] | None:
        """See `Task.words`: what the encoder reads, then what the decoder does."""
        read = super().words(inputs) or []
        return [*read, START, *read[:-1]]

    def prepare(self, inputs: jax.Array) -> jax.Array:
        """See `Task.prepare`: symbols from ids, of which 0 is padding."""
        return jnp.maximum(inputs.astype(jnp.int32) - 1, 0)

    @abstractmethod
    def scores(
        self,
        model: Any,
        symbols: Int[Array, "B T"],
        batch: Batch,
        key: Key[Array, ""] | None,
        *,
        train: bool,
    ) -> Float[Array, "B T V"]:
        """Scores (logits) of the symbols of a batch; anything at padding."""

    def loss(
        self,
        model: nnx.Module,
        batch: Batch,
        carry: tuple,
        key: Key[Array, ""] | None,
        *,
        train: bool,
    ) -> Outcome:
        """See `Task.loss`: cross-entropy [nats] of a symbol; exact match counts rows."""
        symbols = self.prepare(batch.inputs)
        return scored(self.scores(model, symbols, batch, key, train=train), symbols, batch, carry)

    def findings(
        self, model: nnx.Module, sources: Mapping[str, Source], counts: Mapping[str, np.ndarray]
    ) -> Findings:
        """See `Task.findings`: rows of the split that selects that are wrong, and some right."""
        del counts

        @nnx.jit
        def predict(model: nnx.Module, symbols: Array, batch: Batch) -> Array:
            found = self.scores(model, symbols, batch, jax.random.key(0), train=False)
            return found.argmax(axis=-1)

        rows: dict[str, list[tuple[str, str]]] = {"mistakes": [], "correct": []}
        for fed in sources[self.selects_on].epoch():
            symbols = self.prepare(fed.batch.inputs)
            said = predict(model, symbols, fed.batch)
            valid = np.asarray(valid_symbols(symbols, fed.batch))
            for read, answer, real in zip(*map(np.asarray, (symbols, said, valid)), strict=True):
                if not real.any():
                    continue
                right = (read == answer)[real].all()
                found = rows["correct" if right else "mistakes"]
                if len(found) < MOST_SHOWN:
                    found.append((self._text(read[real]), self._text(answer[real])))
            if min(map(len, rows.values())) == MOST_SHOWN:
                break
        return {name: Table(("input", "output"), r) for name, r in rows.items()}

    def _text(self, symbols: Int[np.ndarray, " T"]) -> str:
        words = super().words(symbols + 1) or []
        return ("" if max(map(len, words)) == 1 else " ").join(words)


@dataclass(frozen=True)
class RepeatOptions:
    """Options of repetition."""

    no_input: bool = False
    """Let the decoder read a constant in place of the symbol before."""


@TASKS.register("repeat")
class Repeat(Repetition):
    """A sequence said again from the state that it left."""

    Options = RepeatOptions
    preferred_body = "cells"
    defaults = {  # noqa: RUF012
        **Repetition.defaults,
        "n_layers": 1,
        "d_model": 64,
        "d_hidden": 64,
        "p_dropout": 0.0,
        "norm": "layer",
        "max_steps": 40_000,
    }

    def __init__(self, card: Card, model: ModelConfig, options: RepeatOptions | None = None):
        """Join a data set and a network; see `Task`.

        Raises:
            ValueError: if the data are no rows of tokens, or a network of its own cannot repeat.
        """
        super().__init__(card, model, options)
        if model.model in NETWORKS and NETWORKS[model.model].task != "repeat":
            raise ValueError(f"model must be one that can repeat, got {model.model}")
        if model.model in NETWORKS and self.options.no_input:
            raise ValueError(f"no_input must be False for model {model.model!r}, got True")

    def build_model(self, rngs: nnx.Rngs) -> nnx.Module:
        """A freshly initialised network."""
        if self.model.model in NETWORKS:
            network: Any = NETWORKS[self.model.model]
            return network(self.n_symbols, **self.model.options, rngs=rngs)
        return EncoderDecoder(self.model, self.n_symbols, no_input=self.options.no_input, rngs=rngs)

    def scores(
        self,
        model: Any,
        symbols: Int[Array, "B T"],
        batch: Batch,
        key: Key[Array, ""] | None,
        *,
        train: bool,
    ) -> Float[Array, "B T V"]:
        """See `Repetition.scores`."""
        key = key if train else None
        return model(symbols, lengths=batch.lengths, train=train, key=key)


def valid_symbols(symbols: Int[Array, "B T"], batch: Batch) -> Bool[Array, "B T"]:
    """True for symbols of examples, False at padding."""
    steps = jnp.arange(symbols.shape[1])
    lengths = len(steps) if batch.lengths is None else batch.lengths[:, None]
    return (steps < lengths) & (batch.weights[:, None] > 0)


def scored(
    scores: Float[Array, "B T V"], symbols: Int[Array, "B T"], batch: Batch, carry: tuple
) -> Outcome:
    """Loss and metrics of scores of symbols.

    Args:
        scores: of each symbol (logits); anything at padding.
        symbols: those that are right.
        batch: that has them.
        carry: to hand on.
    """
    valid = valid_symbols(symbols, batch)
    losses = optax.softmax_cross_entropy_with_integer_labels(scores, symbols)
    # The largest of scores that are not numbers would be the first: symbol 0.
    right = (scores.argmax(axis=-1) == symbols) & jnp.isfinite(scores).all(axis=-1)
    count = jnp.sum(valid, dtype=jnp.float32)
    rows = valid.any(axis=1)
    exact = jnp.sum(rows & (right | ~valid).all(axis=1), dtype=jnp.float32)
    return Outcome(
        Mean(jnp.sum(jnp.where(valid, losses, 0)), count),
        {
            "exact_match": Mean(exact, jnp.sum(rows, dtype=jnp.float32)),
            "token_accuracy": Mean(jnp.sum(right & valid, dtype=jnp.float32), count),
        },
        carry,
    )
