"""Retrieval: whether two documents belong together, from one encoder that reads both."""

from typing import cast

from flax import nnx
from jaxtyping import Array, Float, Key

from lru.dataloading import Batch
from lru.models import TwoTower
from lru.tasks.base import TASKS
from lru.tasks.classification import Classification


@TASKS.register("retrieval")
class Retrieval(Classification):
    """One class for each pair of documents."""

    kinds: tuple[str, ...] = ("token_pairs",)

    def build_model(self, rngs: nnx.Rngs) -> TwoTower:
        """A freshly initialised two-tower network."""
        vocab_size = cast(int, self._card.vocab_size)
        return TwoTower(self._config, self._card.n_classes, vocab_size=vocab_size, rngs=rngs)

    def _scores(
        self, model: nnx.Module, batch: Batch, rng: Key[Array, ""] | None
    ) -> Float[Array, "B C"]:
        return cast(TwoTower, model)(
            self.prepare(batch.inputs), lengths=batch.lengths, train=rng is not None, key=rng
        )
