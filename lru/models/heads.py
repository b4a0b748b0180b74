"""Heads of language models: from features to the probability of each next token.

A head has `log_probabilities(h)` [..., V], and `nll(h, targets)` [...], which need not make all of
them.
"""

from collections.abc import Sequence

import jax
import optax
from flax import nnx
from jaxtyping import Array, Float, Integer

from lru.models.adaptive_softmax import AdaptiveSoftmax, product


class SoftmaxHead(nnx.Module):
    """softmax(h W^T + b).

    Attributes:
        table: W [V, D], which may be the embedding of the inputs.
        bias: b [V].
    """

    def __init__(self, table: nnx.Param):
        """Start with a bias of zeros."""
        self.table = table
        self.bias = nnx.Param(jax.numpy.zeros(table.shape[0]))

    def scores(self, h: Float[Array, "*rows D"]) -> Float[Array, "*rows V"]:
        """The logits."""
        flat = product(h.reshape(-1, h.shape[-1]), self.table[...].T) + self.bias[...]
        return flat.reshape(*h.shape[:-1], -1)

    def log_probabilities(self, h: Float[Array, "*rows D"]) -> Float[Array, "*rows V"]:
        """Of all tokens."""
        return jax.nn.log_softmax(self.scores(h))

    def nll(
        self, h: Float[Array, "*rows D"], targets: Integer[Array, "*rows"]
    ) -> Float[Array, "*rows"]:
        """Minus the log probability of each target."""
        return optax.softmax_cross_entropy_with_integer_labels(self.scores(h), targets)


class AdaptiveHead(nnx.Module):
    """An adaptive softmax with biases, tied to the embedding or not.

    Attributes:
        table: the embedding of the inputs [V, D] if tied; else None.
        softmax: the head and its clusters.
    """

    def __init__(
        self,
        table: nnx.Param | None,
        shape: tuple[int, int],
        cutoffs: Sequence[int],
        *,
        rngs: nnx.Rngs,
    ):
        """Draw what the embedding does not give.

        Args:
            table: the embedding, to tie to; None for weights of its own.
            shape: numbers V of words and D of features.
            cutoffs: first id of each cluster.
            rngs: source of the initial parameters.

        Raises:
            ValueError: if the cutoffs do not fit the vocabulary.
        """
        self.table = table
        vocab_size, d_model = shape
        tied = table is not None
        self.softmax = AdaptiveSoftmax(
            d_model, vocab_size, cutoffs, tied=tied, bias=True, rngs=rngs
        )

    def log_probabilities(self, h: Float[Array, "*rows D"]) -> Float[Array, "*rows V"]:
        """Of all tokens."""
        return self.softmax.log_probs(h, self._embedding())

    def nll(
        self, h: Float[Array, "*rows D"], targets: Integer[Array, "*rows"]
    ) -> Float[Array, "*rows"]:
        """Minus the log probability of each target; clusters without targets cost nothing."""
        return -self.softmax(h, targets, self._embedding())

    def _embedding(self) -> Float[Array, "V D"] | None:
        return None if self.table is None else self.table[...]
