"""Prediction of words by measurement: the quantum network reads a word and is measured, every step.

In training every output is post-selected on its target; in evaluation those that are scored are
measured. The loss of Bausch 2020 (arXiv 2006.14619) as published takes probabilities for logits,

    mean over scored steps of -log softmax(p)[target] - (log(V - 1 + e) - 1),

which is 0 where all probability is on the targets.
"""

from dataclasses import dataclass
from math import e, log
from typing import Literal, cast

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Key

from lru.batches import Batch
from lru.dataloaders import Card
from lru.dataloaders.store.arrays import NO_TARGET, given
from lru.models import NETWORKS, ModelConfig, QuantumRNN
from lru.models.config import one_of
from lru.scan.quantum import Measured
from lru.tasks.base import TASKS, Outcome, Task
from lru.tasks.metrics import Mean, Metrics, Minimum

Loss = Literal["double_softmax", "nll"]


@dataclass(frozen=True)
class MeasurementOptions:
    """Options of prediction by measurement."""

    loss: Loss = "double_softmax"
    """Loss: nll is minus the log probability of the target; double_softmax is the published one,
    which takes probabilities for logits."""

    def __post_init__(self):
        """Check the values.

        Raises:
            ValueError: if there is no such loss.
        """
        one_of("loss", self.loss, Loss)


@TASKS.register("measurement")
class Measurement(Task):
    """A word measured after each word that is read, by a quantum network."""

    Options = MeasurementOptions
    metrics = {  # noqa: RUF012
        "error": Mean,
        "accuracy": Mean,
        "argmax_error": Mean,
        "argmax_accuracy": Mean,
        "min_postselection": Minimum,
    }
    # Those of the published experiments.
    defaults = {  # noqa: RUF012
        "cosine_anneal": False,
        "lr_base": 0.003,
        "weight_decay": 0.0,
        "clip_norm": 0.5,
        "decay": 0.99,
        "history_size": 40,
        "max_steps": 5000,
    }

    def __init__(self, card: Card, model: ModelConfig, options: MeasurementOptions | None = None):
        """Join a data set and a network; see `Task`.

        Raises:
            ValueError: if the data has not one of 2^i words at each step, or the model cannot be
                measured.
        """
        super().__init__(card, model, options)
        n_words = card.n_classes
        if (card.kind, card.targets) != ("tokens", "class_per_step") or (
            n_words & (n_words - 1) or card.vocab_size != n_words + 1
        ):
            raise ValueError(
                "dataset must be one of words of bits for this task, 2^i classes and 2^i + 1 ids "
                f"a step, but the data of {card.name} are {card.kind} with targets {card.targets}, "
                f"{card.vocab_size} ids and {n_words} classes"
            )
        if model.model not in NETWORKS or NETWORKS[model.model].task != "measurement":
            known = [name for name, network in NETWORKS.items() if network.task == "measurement"]
            raise ValueError(f"model must be {' or '.join(known)} for this task, got {model.model}")

    def build_model(self, rngs: nnx.Rngs) -> nnx.Module:
        """A freshly initialised network."""
        network = cast(type[QuantumRNN], NETWORKS[self.model.model])
        return network(self.card.n_classes, **self.model.options, rngs=rngs)

    def prepare(self, inputs: jax.Array) -> jax.Array:
        """See `Task.prepare`: words from ids, of which 0 is padding."""
        return jnp.maximum(inputs.astype(jnp.int32) - 1, 0)

    def loss(
        self,
        model: nnx.Module,
        batch: Batch,
        carry: tuple,
        key: Key[Array, ""] | None,
        *,
        train: bool,
    ) -> Outcome:
        """See `Task.loss`: the loss of a scored word.

        The metrics are the share of scored words that are not their targets, that of rows without
        one, both for words that are measured and for the most probable ones; and the least
        probability of a word that was post-selected. In training all are post-selected, and the
        most probable words are compared.
        """
        network, words = cast(QuantumRNN, model), self.prepare(batch.inputs)
        labels, real = batch.labels, batch.weights[:, None] > 0
        scored = (labels >= 0) & real
        targets = jnp.where(labels < NO_TARGET, given(labels), labels)
        wanted = targets if train else jnp.where(scored, -1, targets)

        def run(key: Key[Array, ""] | None) -> Measured:
            return network(words, wanted, lengths=batch.lengths, key=key)[0]

        probable = run(None)
        answers = probable.probabilities.argmax(axis=-1) if train else probable.words
        outcome = probable if train else run(key)
        p = outcome.probabilities
        at_target = jnp.take_along_axis(p, jnp.maximum(targets, 0)[..., None], axis=-1)[..., 0]
        selected = (wanted >= 0) & real
        losses = jnp.where(scored, self._loss(p, jnp.where(scored, at_target, 1)), 0)
        count = jnp.sum(scored, dtype=jnp.float32)
        rows = scored.any(axis=1)

        def compared(found: Array) -> tuple[Mean, Mean]:
            wrong = scored & (found != labels)
            right_rows = jnp.sum(rows & ~wrong.any(axis=1), dtype=jnp.float32)
            of_rows = Mean(right_rows, jnp.sum(rows, dtype=jnp.float32))
            return Mean(jnp.sum(wrong, dtype=jnp.float32), count), of_rows

        error, accuracy = compared(answers if train else outcome.words)
        argmax_error, argmax_accuracy = compared(answers)
        metrics: Metrics = {
            "error": error,
            "accuracy": accuracy,
            "argmax_error": argmax_error,
            "argmax_accuracy": argmax_accuracy,
            "min_postselection": Minimum(jnp.min(jnp.where(selected, at_target, 1))),
        }
        return Outcome(Mean(jnp.sum(losses), count), metrics, carry)

    def _loss(self, p: Array, at_target: Array) -> Array:
        if self.options.loss == "nll":
            return -jnp.log(at_target)
        shift = log(self.card.n_classes - 1 + e) - 1
        return jax.nn.logsumexp(p, axis=-1) - at_target - shift
