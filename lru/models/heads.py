"""Heads of language models: from features to the probability of each next token.

A head has `log_probabilities(h)` [..., V], and `nll(h, targets)` [...], which need not make all of
them.
"""

import jax
import optax
from flax import nnx
from jaxtyping import Array, Float, Integer


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
        flat = h.reshape(-1, h.shape[-1]) @ self.table[...].T + self.bias[...]
        return flat.reshape(*h.shape[:-1], -1)

    def log_probabilities(self, h: Float[Array, "*rows D"]) -> Float[Array, "*rows V"]:
        """Of all tokens."""
        return jax.nn.log_softmax(self.scores(h))

    def nll(
        self, h: Float[Array, "*rows D"], targets: Integer[Array, "*rows"]
    ) -> Float[Array, "*rows"]:
        """Minus the log probability of each target."""
        return optax.softmax_cross_entropy_with_integer_labels(self.scores(h), targets)
