"""Retrieval: whether two documents belong together, from one encoder that reads both."""

from typing import cast

from flax import nnx
from jaxtyping import Array, Float, Key

from lru.batches import Batch
from lru.models import TwoTower
from lru.tasks.base import TASKS
from lru.tasks.classification import Classification


@TASKS.register("retrieval")
class Retrieval(Classification):
    """One class for each pair of documents."""

    kinds: tuple[str, ...] = ("token_pairs",)

    def build_model(self, rngs: nnx.Rngs) -> TwoTower:
        """A freshly initialised two-tower network."""
        return TwoTower(
            self.model,
            self.n_outputs,
            pooling=self.pooling,
            one_hot=self.options.one_hot,
            vocab_size=cast(int, self.card.vocab_size),
            rngs=rngs,
        )

    def scores(
        self, model: nnx.Module, batch: Batch, key: Key[Array, ""] | None, *, train: bool
    ) -> Float[Array, "B C"]:
        """Scores of the classes (logits)."""
        return cast(TwoTower, model)(
            self.prepare(batch.inputs), lengths=batch.lengths, train=train, key=key
        )
