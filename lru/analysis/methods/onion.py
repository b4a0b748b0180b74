"""Onion code: the place of a symbol is a scale, and the symbol a direction.

A symbol at place p stands in the state as E[symbol] s(p), with s(p) = g gamma^p + p beta + b
elementwise, whatever the others are (Csordás et al. 2024, arXiv 2408.10920, "onion
representations"). The intervention puts one symbol right in the state of a sequence in which it was
replaced; the probe peels off one symbol after another.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from lru.analysis.methods.base import Frozen
from lru.analysis.methods.repetition import (
    RepetitionAnalysis,
    encoded,
    lengths_of,
    random_places,
)
from lru.batches import Batch
from lru.layers.cell import uniform_linear
from lru.tasks import TASKS


class Scale(nnx.Module):
    """s(p) = g gamma^p + p beta + b, each a vector [M].

    Attributes:
        g: factor of the power.
        gamma: of which it is.
        beta: slope.
        b: constant part.
    """

    def __init__(self, width: int, *, beta: float = 1.0, by_place: bool = True):
        """Begin with gamma 0.9.

        Args:
            width: M.
            beta: initial slope.
            by_place: whether the scale depends on the place; else gamma is 1 and beta 0 for good.
        """
        kind = nnx.Param if by_place else Frozen
        self.g = nnx.Param(jnp.ones(width))
        self.b = nnx.Param(jnp.zeros(width))
        self.gamma = kind(jnp.full(width, 0.9 if by_place else 1.0))
        self.beta = kind(jnp.full(width, beta if by_place else 0.0))

    def __call__(self, place: Int[Array, "*B"]) -> Float[Array, "*B M"]:
        """The scales at places from 0."""
        p = place[..., None]
        return self.g[...] * self.gamma[...] ** p + p * self.beta[...] + self.b[...]


class Replaced(NamedTuple):
    """One symbol of each row, replaced by another.

    Attributes:
        place: of it, from 0 [B].
        symbol: in its stead, which may be the same [B].
    """

    place: Int[Array, " B"]
    symbol: Int[Array, " B"]


class OnionEdit(nnx.Module):
    """h + (tanh E[right] - tanh E[wrong]) s(place): the state as if the symbol had been right.

    Attributes:
        subject: the model whose states these are.
        embedding: E [V, M].
        scale: s.
    """

    def __init__(self, subject: Any, n_symbols: int, width: int, by_place: bool, *, rngs: nnx.Rngs):
        """Draw the directions.

        Args:
            subject: the model.
            n_symbols: number V of symbols.
            width: M.
            by_place: see `Scale`.
            rngs: source of the initial parameters.
        """
        self.subject = subject
        self.embedding = nnx.Param(jax.random.normal(rngs.params(), (n_symbols, width)))
        self.scale = Scale(width, by_place=by_place)

    def __call__(
        self,
        h: Float[Array, "B M"],
        right: Int[Array, " B"],
        wrong: Int[Array, " B"],
        place: Int[Array, " B"],
    ) -> Float[Array, "B M"]:
        """The edited states."""
        directions = jnp.tanh(self.embedding[...])
        return h + (directions[right] - directions[wrong]) * self.scale(place)


@dataclass(frozen=True)
class OnionInterventionOptions:
    """Options of the onion intervention."""

    no_scale: bool = False
    """Control: give every place the same scale."""


@TASKS.register("onion-intervention")
class OnionIntervention(RepetitionAnalysis):
    """One wrong symbol put right in the state, by a direction for it and a scale for its place."""

    Options = OnionInterventionOptions
    reads: ClassVar = {name: name for name in ("train", "val", "fixed", "rep_3")}

    def build_model(self, rngs: nnx.Rngs) -> OnionEdit:
        """See `Task.build_model`."""
        by_place = not self.options.no_scale
        return OnionEdit(self.subject, self.n_symbols, self.width, by_place, rngs=rngs)

    def scores(
        self,
        model: OnionEdit,
        symbols: Int[Array, "B T"],
        batch: Batch,
        key: Key[Array, ""] | None,
        *,
        train: bool,
    ) -> Float[Array, "B T V"]:
        """See `Repetition.scores`."""
        assert key is not None, "training and evaluation give one"
        return self.restored(model, symbols, batch, self.draw(symbols, batch, key))

    def draw(self, symbols: Int[Array, "B T"], batch: Batch, key: Key[Array, ""]) -> Replaced:
        """A place of each row, and a symbol to put there."""
        at, other = jax.random.split(key)
        place = random_places(at, lengths_of(symbols, batch))
        return Replaced(place, jax.random.randint(other, place.shape, 0, self.n_symbols))

    def restored(
        self, model: OnionEdit, symbols: Int[Array, "B T"], batch: Batch, replaced: Replaced
    ) -> Float[Array, "B T V"]:
        """Scores of the symbols from states in which one was replaced and put right again."""
        rows = jnp.arange(len(symbols))
        wrong = symbols.at[rows, replaced.place].set(replaced.symbol.astype(symbols.dtype))
        h, unflatten = encoded(model.subject, wrong, batch.lengths)
        h = model(h, symbols[rows, replaced.place], replaced.symbol, replaced.place)
        return model.subject.decode(unflatten(h), symbols, lengths=batch.lengths)


class OnionReadout(nnx.Module):
    """Reads a symbol by W2 relu(W1 LN(h) + b1) + b2, takes E[symbol] s(p) off h, and goes on.

    Attributes:
        subject: the model whose states are read.
        embedding: E [V, M].
        scale: s.
        norm: LN, layer normalisation.
        hidden: W1 and b1.
        head: W2 and b2.
    """

    def __init__(self, subject: Any, n_symbols: int, width: int, *, rngs: nnx.Rngs):
        """Draw the parameters; arguments as for `OnionEdit`."""
        self.subject = subject
        self.embedding = nnx.Param(jax.random.normal(rngs.params(), (n_symbols, width)))
        self.scale = Scale(width, beta=0.1)
        self.norm = nnx.LayerNorm(width, epsilon=1e-5, use_fast_variance=False, rngs=rngs)
        self.hidden = uniform_linear(width, width, rngs=rngs)
        self.head = uniform_linear(width, n_symbols, rngs=rngs)

    def __call__(self, h: Float[Array, "B M"], symbols: Int[Array, "B T"]) -> Float[Array, "B T V"]:
        """Scores of each symbol, after the true ones before it were taken off."""
        places = jnp.arange(symbols.shape[1])
        peels = self.embedding[...][symbols] * self.scale(places)
        h = h[:, None] - (jnp.cumsum(peels, axis=1) - peels)
        return self.head(nnx.relu(self.hidden(self.norm(h))))
