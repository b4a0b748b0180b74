"""Linear code: each place, or window of places, has a subspace of the state to itself.

An orthogonal Q turns the state, u = Q h, and every coordinate of u is given to one variable, a
place or a window, or to none. Where the code is linear, the variables of one state can be set in
another by exchanging their coordinates (Csordás et al. 2024, arXiv 2408.10920, after Geiger et al.
2023, arXiv 2303.02536).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from lru.analysis.methods.base import Frozen, Opened
from lru.analysis.methods.repetition import (
    RepetitionAnalysis,
    encoded,
    lengths_of,
    random_places,
)
from lru.batches import Batch, DataConfig, Source
from lru.dataloaders import Card, Prepared
from lru.models import ModelConfig
from lru.models.config import one_of
from lru.tasks import TASKS, Mean, Outcome

REGULARISATION = 0.001
"""Weight of the pull towards coordinates that belong to no variable."""

SQUARINGS, TERMS = 8, 16
"""Of the exponential: exact to rounding for matrices of norm up to 2^8."""

Assignment = Literal["learned", "fixed"]


def exponential(A: Float[Array, "M M"]) -> Float[Array, "M M"]:
    """exp(A) by squaring the series of a fraction of A: a hundredth of the time of SciPy's way."""
    A = A / 2**SQUARINGS
    one = jnp.eye(A.shape[0], dtype=A.dtype)
    E = one
    for k in range(TERMS, 0, -1):
        E = one + A @ E / k
    for _ in range(SQUARINGS):
        E = E @ E
    return E


class LinearEdit(nnx.Module):
    """Sets variables of one state to those of another.

    Attributes:
        subject: the model whose states these are.
        base: random orthogonal matrix [M, M].
        skew: A = tril(skew) - tril(skew)^T, and Q = base exp(A) [M, M].
        logits: of the variables W and of none, for each coordinate [M, W + 1]; one-hot for good if
            the assignment is fixed.
        learned: whether the assignment is trained.
    """

    def __init__(
        self,
        subject: Any,
        width: int,
        n_variables: int,
        *,
        assignment: Assignment = "learned",
        rngs: nnx.Rngs,
    ):
        """Draw the rotation and the assignment.

        Args:
            subject: the model.
            width: M.
            n_variables: W.
            assignment: learned, or fixed blocks of M // W coordinates, the rest of no variable.
            rngs: source of the initial parameters.
        """
        self.subject = subject
        self.base = Frozen(jax.random.orthogonal(rngs.params(), width))
        self.skew = nnx.Param(-jnp.eye(width))
        self.learned = assignment == "learned"
        shape = (width, n_variables + 1)
        if self.learned:
            self.logits = nnx.Param(0.01 * jax.random.normal(rngs.params(), shape))
        else:
            block = jnp.minimum(jnp.arange(width) // (width // n_variables), n_variables)
            self.logits = Frozen(jax.nn.one_hot(block, n_variables + 1))

    @property
    def rotation(self) -> Float[Array, "M M"]:
        """Q."""
        lower = jnp.tril(self.skew[...], -1)
        return self.base[...] @ exponential(lower - lower.T)

    def assignment(self, gumbel: Float[Array, "M W_1"] | None) -> Float[Array, "M W_1"]:
        """One-hot variable of each coordinate.

        Args:
            gumbel: noise on the logits, with which the gradient is that of a softmax (Jang et al.
                2016, arXiv 1611.01144); None to take the largest.
        """
        noise = gumbel if self.learned else None
        logits = self.logits[...] if noise is None else self.logits[...] + noise
        hard = jax.nn.one_hot(logits.argmax(axis=-1), logits.shape[-1], dtype=logits.dtype)
        if noise is None:
            return hard
        soft = jax.nn.softmax(logits)
        return hard + soft - jax.lax.stop_gradient(soft)

    def pull(self) -> Float[Array, ""]:
        """Regulariser: least where no coordinate belongs to a variable; 0 of fixed ones."""
        logits = self.logits[...]
        by = REGULARISATION * self.learned
        return by * (logits[:, :-1].mean() - logits[:, -1].mean())

    def __call__(
        self,
        base: Float[Array, "B M"],
        source: Float[Array, "B M"],
        moved: Bool[Array, "B W"],
        gumbel: Float[Array, "M W_1"] | None = None,
    ) -> Float[Array, "B M"]:
        """States with some variables of others.

        Args:
            base: states to change.
            source: states to take variables from.
            moved: which variables.
            gumbel: see `assignment`.
        """
        rotation = self.rotation
        # Rows of the assignment sum to one, so what is not moved stays.
        share = moved.astype(base.dtype) @ self.assignment(gumbel)[:, :-1].T
        return base + (share * ((source - base) @ rotation.T)) @ rotation


class Exchange(NamedTuple):
    """Sequences to encode, and the variables to set in the first B of their states from others.

    Attributes:
        symbols: what is encoded [R, T], R at least B.
        lengths: of these sequences [R].
        source: number of the state to take variables from [B].
        moved: which variables [B, W].
    """

    symbols: Int[Array, "R T"]
    lengths: Int[Array, " R"]
    source: Int[Array, " B"]
    moved: Bool[Array, "B W"]


def swapped(
    symbols: Int[Array, "B T"],
    lengths: Int[Array, " B"],
    partner: Int[Array, " B"],
    where: Bool[Array, "B T"],
) -> Exchange:
    """Pairs of rows that exchange symbols at some places, which are the variables.

    Args:
        symbols: of the rows.
        lengths: of the rows.
        partner: number of the other row of the pair.
        where: the places, for each of a pair the same.
    """
    shorter = jnp.minimum(lengths, lengths[partner])
    where = where & (jnp.arange(symbols.shape[1]) < shorter[:, None])
    return Exchange(jnp.where(where, symbols[partner], symbols), lengths, partner, where)


def windows_with(place: Int[Array, " B"], n: int, steps: int) -> Bool[Array, "B W"]:
    """Windows of n adjacent places, by their first, that contain a place."""
    first = jnp.arange(steps - n + 1)
    return (first > place[:, None] - n) & (first <= place[:, None])


def replaced_in_windows(
    symbols: Int[Array, "B T"],
    lengths: Int[Array, " B"],
    place: Int[Array, " B"],
    others: Int[Array, "B T"],
    n: int,
) -> Exchange:
    """One symbol of each row replaced; the windows that contain it come from another sequence.

    That one keeps the symbols of these windows and has others elsewhere.

    Args:
        symbols: of the rows.
        lengths: of the rows.
        place: of the symbol.
        others: random symbols.
        n: places of a window.
    """
    places = jnp.arange(symbols.shape[1])
    away = jnp.abs(places - place[:, None])
    near = (away < n) & (places < lengths[:, None])
    base = jnp.where(away == 0, others, symbols)
    source = jnp.where(near, symbols, others)
    rows, steps = symbols.shape
    return Exchange(
        jnp.concatenate([base, source]),
        jnp.concatenate([lengths, lengths]),
        rows + jnp.arange(rows),
        windows_with(place, n, steps),
    )


@dataclass(frozen=True)
class LinearInterventionOptions:
    """Options of the linear intervention."""

    ngram: int = 1
    """Number of adjacent places that share a variable."""
    assignment: Assignment = "learned"
    """Variables of the coordinates: learned, or fixed blocks of the same size."""

    def __post_init__(self):
        """Check the values.

        Raises:
            ValueError: if one is out of range.
        """
        if self.ngram < 1:
            raise ValueError(f"ngram must be at least 1, got {self.ngram}")
        one_of("assignment", self.assignment, Assignment)


@TASKS.register("linear-intervention")
class LinearIntervention(RepetitionAnalysis):
    """Symbols, or windows of symbols, set by exchanging coordinates of a turned state.

    All sequences have the greatest length.

    Attributes:
        steps: this length T.
        n_variables: number W of places or windows.
    """

    Options = LinearInterventionOptions
    selects_on = "fixed"
    reads: ClassVar = {
        "train": "fixed_train",
        "fixed": "fixed",
        "fixed_norepeat": "fixed_norepeat",
    }

    def __init__(
        self, card: Card, model: ModelConfig, options: LinearInterventionOptions, opened: Opened
    ):
        """Join a data set and what is looked at; see `Analysis`.

        Raises:
            ValueError: if there are no sequences of one length, they are too short for the windows,
                or the state has fewer numbers than there are variables.
        """
        super().__init__(card, model, options, opened)
        if not {*self.reads.values()} <= card.splits.keys() | {"fixed_norepeat"}:
            raise ValueError(
                "dataset must have sequences of one length for this method, in splits fixed_train "
                f"and fixed, but {card.name} has {', '.join(card.splits)}"
            )
        self.steps = card.splits["fixed"]["max_length"]
        self.n_variables = self.steps - self.options.ngram + 1
        if self.n_variables < 1:
            raise ValueError(
                f"ngram must be at most {self.steps}, the length of the sequences, got "
                f"{self.options.ngram}"
            )
        if self.width < self.n_variables:
            raise ValueError(
                f"a state must have at least {self.n_variables} real numbers, one for each window "
                f"of ngram = {self.options.ngram} of {self.steps} symbols, but that of the run has "
                f"{self.width}"
            )

    def sources(
        self, data: Prepared, config: DataConfig, *, seed: int, on_device: bool | None
    ) -> Mapping[str, Source]:
        """See `Task.sources`.

        Raises:
            ValueError: if the rows of a batch cannot be paired.
        """
        if self.options.ngram == 1 and config.batch_size % 2:
            raise ValueError(
                "batch_size must be even, as rows are paired to exchange their symbols, got "
                f"{config.batch_size}"
            )
        return super().sources(data, config, seed=seed, on_device=on_device)

    def build_model(self, rngs: nnx.Rngs) -> LinearEdit:
        """See `Task.build_model`."""
        of = self.options.assignment
        return LinearEdit(self.subject, self.width, self.n_variables, assignment=of, rngs=rngs)

    def draw(self, symbols: Int[Array, "B T"], batch: Batch, key: Key[Array, ""]) -> Exchange:
        """Random pairs and places; a random place and a random sequence of windows."""
        rows, steps = symbols.shape
        lengths = lengths_of(symbols, batch)
        one, two = jax.random.split(key)
        if self.options.ngram == 1:
            # Rows that fill up a batch are paired with one another: nothing could be exchanged.
            fillers = batch.weights <= 0
            order = jnp.argsort(fillers + jax.random.uniform(one, (rows,)))
            first, second = order.reshape(-1, 2).T
            partner = jnp.zeros(rows, int).at[first].set(second).at[second].set(first)
            drawn = jax.random.bernoulli(two, shape=(rows, steps))
            where = drawn.at[second].set(drawn[first])
            return swapped(symbols, lengths, partner, where)
        place = random_places(one, lengths)
        others = jax.random.randint(two, symbols.shape, 0, self.n_symbols)
        return replaced_in_windows(symbols, lengths, place, others, self.options.ngram)

    def scores(
        self,
        model: LinearEdit,
        symbols: Int[Array, "B T"],
        batch: Batch,
        key: Key[Array, ""] | None,
        *,
        train: bool,
    ) -> Float[Array, "B T V"]:
        """See `Repetition.scores`."""
        assert key is not None, "training and evaluation give one"
        drawn, noise = jax.random.split(key)
        gumbel = jax.random.gumbel(noise, model.logits.shape) if train else None
        exchange = self.draw(symbols, batch, drawn)
        return self.restored(model, symbols, batch, exchange, gumbel)

    def restored(
        self,
        model: LinearEdit,
        symbols: Int[Array, "B T"],
        batch: Batch,
        exchange: Exchange,
        gumbel: Float[Array, "M W_1"] | None,
    ) -> Float[Array, "B T V"]:
        """Scores of the symbols from states whose variables were set back."""
        h, unflatten = encoded(model.subject, exchange.symbols, exchange.lengths)
        h = model(h[: len(symbols)], h[exchange.source], exchange.moved, gumbel)
        return model.subject.decode(unflatten(h), symbols, lengths=batch.lengths)

    def loss(
        self,
        model: nnx.Module,
        batch: Batch,
        carry: tuple,
        key: Key[Array, ""] | None,
        *,
        train: bool,
    ) -> Outcome:
        """See `Task.loss`; in training with the regulariser."""
        outcome = super().loss(model, batch, carry, key, train=train)
        if not train:
            return outcome
        assert isinstance(model, LinearEdit)
        loss = outcome.loss
        return outcome._replace(loss=Mean(loss.total + loss.weight * model.pull(), loss.weight))
