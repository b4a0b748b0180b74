"""Probes: the whole sequence read from the state of a model, by networks of rising power.

Linear and MLP probes read all places at once; the onion probe and a GRU read one symbol after
another, from what is left or from a state of their own (Csordás et al. 2024, arXiv 2408.10920,
section 5). They are trained, and scored, with the true symbols before each.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from lru.analysis.methods.onion import OnionReadout
from lru.analysis.methods.repetition import RepetitionAnalysis, encoded
from lru.batches import Batch
from lru.layers.cell import uniform_linear
from lru.layers.gru import GRUCell, GRUState
from lru.models.encoder_decoder import after_start
from lru.tasks import TASKS


class FeedForwardReadout(nnx.Module):
    """All places at once: one linear map, or two with a ReLU between them.

    Attributes:
        subject: the model whose states are read.
        hidden: the first of two maps; None if there is one.
        head: to the scores of all symbols at all places.
        n_symbols: their number V.
    """

    def __init__(
        self,
        subject: Any,
        n_symbols: int,
        steps: int,
        width: int,
        *,
        hidden: bool,
        rngs: nnx.Rngs,
    ):
        """Draw the parameters.

        Args:
            subject: the model.
            n_symbols: number V of symbols.
            steps: most symbols T of a sequence.
            width: numbers M in a state.
            hidden: whether there are two maps.
            rngs: source of the initial parameters.
        """
        self.subject, self.n_symbols = subject, n_symbols
        self.hidden = uniform_linear(width, width, rngs=rngs) if hidden else None
        self.head = uniform_linear(width, steps * n_symbols, rngs=rngs)

    def __call__(self, h: Float[Array, "B M"], symbols: Int[Array, "B T"]) -> Float[Array, "B T V"]:
        """Scores of each symbol, whatever the others are."""
        h = h if self.hidden is None else nnx.relu(self.hidden(h))
        return self.head(h).reshape(len(h), -1, self.n_symbols)[:, : symbols.shape[1]]


class GRUReadout(nnx.Module):
    """A GRU that starts from the state.

    Attributes:
        subject: the model whose states are read.
        embedding: of the symbols and of the start, which it reads; None to read zeros.
        gru: M wide.
        head: to the scores of the symbols.
    """

    def __init__(self, subject: Any, n_symbols: int, width: int, *, no_input: bool, rngs: nnx.Rngs):
        """Draw the parameters.

        Args:
            subject: the model.
            n_symbols: number V of symbols.
            width: numbers M in a state.
            no_input: whether it reads zeros in place of the symbols before.
            rngs: source of the initial parameters.
        """
        self.subject = subject
        self.embedding = (
            None
            if no_input
            else nnx.Param(jax.random.normal(rngs.params(), (n_symbols + 1, width)))
        )
        self.gru = GRUCell(width, width, rngs=rngs)
        self.head = uniform_linear(width, n_symbols, rngs=rngs)

    def __call__(self, h: Float[Array, "B M"], symbols: Int[Array, "B T"]) -> Float[Array, "B T V"]:
        """Scores of each symbol, after the true ones before it."""
        if self.embedding is None:
            x = jnp.zeros((*symbols.shape, h.shape[1]), h.dtype)
        else:
            x = self.embedding[...][after_start(symbols, self.embedding.shape[0] - 1)]
        return self.head(self.gru(x, GRUState(h))[0])


class RepetitionProbe(RepetitionAnalysis):
    """Base of the probes; a model maps states and symbols to scores."""

    reads: ClassVar = {name: name for name in ("train", "val", "fixed")}

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
        del key, train
        return model(encoded(model.subject, symbols, batch.lengths)[0], symbols)


@TASKS.register("linear-probe")
class LinearProbe(RepetitionProbe):
    """All symbols read from the state by one linear map."""

    hidden: ClassVar[bool] = False

    def build_model(self, rngs: nnx.Rngs) -> FeedForwardReadout:
        """See `Task.build_model`."""
        steps = self.card.splits["train"]["max_length"]
        sizes = (self.n_symbols, steps, self.width)
        return FeedForwardReadout(self.subject, *sizes, hidden=self.hidden, rngs=rngs)


@TASKS.register("mlp-probe")
class MLPProbe(LinearProbe):
    """All symbols read from the state by a network with one hidden layer."""

    hidden = True


@TASKS.register("onion-probe")
class OnionProbe(RepetitionProbe):
    """Symbols peeled off the state one after the other."""

    def build_model(self, rngs: nnx.Rngs) -> OnionReadout:
        """See `Task.build_model`."""
        return OnionReadout(self.subject, self.n_symbols, self.width, rngs=rngs)


@dataclass(frozen=True)
class GRUProbeOptions:
    """Options of the probe by a GRU."""

    no_input: bool = False
    """Let the GRU read zeros in place of the symbol before."""


@TASKS.register("gru-probe")
class GRUProbe(RepetitionProbe):
    """Symbols read by a GRU that starts from the state."""

    Options = GRUProbeOptions
    # As published: every weight is decayed.
    defaults: ClassVar = {**RepetitionProbe.defaults, "decay_recurrent": True}

    def build_model(self, rngs: nnx.Rngs) -> GRUReadout:
        """See `Task.build_model`."""
        no_input = self.options.no_input
        return GRUReadout(self.subject, self.n_symbols, self.width, no_input=no_input, rngs=rngs)
