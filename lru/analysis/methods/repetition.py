"""Base of the analyses of models that repeat, and what they have in common."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from lru.analysis.methods.base import Analysis, Opened
from lru.analysis.states import Unflatten, flatten_states
from lru.batches import Batch
from lru.dataloaders import Card
from lru.models import ModelConfig
from lru.tasks.repeat import Repeat, Repetition


class RepetitionAnalysis(Analysis, Repetition):
    """Base of the analyses of models that repeat; scored like them, on the original sequences.

    Attributes:
        width: number M of real numbers in a state of the model.
    """

    defaults: ClassVar = {**Repetition.defaults, "max_steps": 60_000}

    def __init__(self, card: Card, model: ModelConfig, options: Any, opened: Opened):
        """Join a data set and what is looked at; see `Analysis`.

        Raises:
            ValueError: if what is looked at does not repeat.
        """
        super().__init__(card, model, options, opened)
        if not isinstance(opened.task, Repeat):
            raise ValueError(
                "method must fit the task of the run: this one looks at models of task repeat, not "
                f"of {type(opened.task).__name__}"
            )
        # One symbol is enough to know the shapes.
        h, _ = encoded(opened.models[0], jnp.zeros((1, 1), int), None)
        self.width = h.shape[1]


def encoded(
    subject: Any, symbols: Int[Array, "B T"], lengths: Int[Array, " B"] | None
) -> tuple[Float[Array, "B M"], Unflatten]:
    """The states of a model after reading, as vectors, and what makes them states again."""
    return flatten_states(jax.lax.stop_gradient(subject.encode(symbols, lengths=lengths)))


def random_places(key: Key[Array, ""], lengths: Int[Array, " B"]) -> Int[Array, " B"]:
    """A place of each row, uniform below its length; 0 of an empty row."""
    return jnp.floor(jax.random.uniform(key, lengths.shape) * lengths).astype(int)


def lengths_of(symbols: Int[Array, "B T"], batch: Batch) -> Int[Array, " B"]:
    """The numbers of symbols of all rows of a batch."""
    rows, steps = symbols.shape
    return jnp.full(rows, steps) if batch.lengths is None else batch.lengths
