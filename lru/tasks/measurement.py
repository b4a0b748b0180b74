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
from lru.tasks.base import TASKS, Outcome, Task
from lru.tasks.metrics import Mean, Minimum

Loss = Literal["double_softmax", "nll"]
Readout = Literal["sampled", "most_probable"]


@dataclass(frozen=True)
class MeasurementOptions:
    """Options of prediction by measurement."""

    loss: Loss = "double_softmax"
    """Loss: nll is minus the log probability of the target; double_softmax is the published one,
    which takes probabilities for logits."""
    readout: Readout = "sampled"
    """Outcome of a measurement in evaluation: sampled by its probability, or the most probable."""

    def __post_init__(self):
        """Check the values.

        Raises:
            ValueError: if there is no such loss or read-out.
        """
        one_of("loss", self.loss, Loss)
        one_of("readout", self.readout, Readout)


@TASKS.register("measurement")
class Measurement(Task):
    """A word measured after each word that is read, by a quantum network."""

    Options = MeasurementOptions
    metrics = {"error": Mean, "accuracy": Mean, "min_postselection": Minimum}  # noqa: RUF012
    # Those of the published experiments.
    defaults = {  # noqa: RUF012
        "cosine_anneal": False,
        "lr_base": 0.003,
        "weight_decay": 0.0,
        "clip_norm": 0.5,
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
                "data must be words, in and out, of a number of bits for this task, but those of "
                f"{card.name} are {card.kind} with targets {card.targets}, {card.vocab_size} ids "
                f"and {n_words} classes"
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

        The metrics are the share of scored words that were measured wrong, in training those that
        are not the most probable; the share of rows without one; and the least probability of a
        word that was post-selected.
        """
        labels, real = batch.labels, batch.weights[:, None] > 0
        scored = (labels >= 0) & real
        targets = jnp.where(labels < NO_TARGET, given(labels), labels)
        sampled = not train and self.options.readout == "sampled"
        outcome, _ = cast(QuantumRNN, model)(
            self.prepare(batch.inputs),
            targets if train else jnp.where(scored, -1, targets),
            lengths=batch.lengths,
            key=key if sampled else None,
        )
        p = outcome.probabilities
        answers = p.argmax(axis=-1) if train else outcome.words
        right = answers == labels
        at_target = jnp.take_along_axis(p, jnp.maximum(targets, 0)[..., None], axis=-1)[..., 0]
        selected = (targets >= 0) & real & (train | ~scored)
        count = jnp.sum(scored, dtype=jnp.float32)
        rows = batch.weights * scored.any(axis=1)
        return Outcome(
            Mean(
                jnp.sum(jnp.where(scored, self._loss(p, jnp.where(scored, at_target, 1)), 0)), count
            ),
            {
                "error": Mean(jnp.sum(scored & ~right, dtype=jnp.float32), count),
                "accuracy": Mean(jnp.sum(rows * (right | ~scored).all(axis=1)), jnp.sum(rows)),
                "min_postselection": Minimum(jnp.min(jnp.where(selected, at_target, 1))),
            },
            carry,
        )

    def _loss(self, p: Array, at_target: Array) -> Array:
        if self.options.loss == "nll":
            return -jnp.log(at_target)
        shift = log(self.card.n_classes - 1 + e) - 1
        return jax.nn.logsumexp(p, axis=-1) - at_target - shift
