"""Adaptive softmax: a head of frequent words and one entry a cluster of rarer ones.

    log p(w) = log p_head(w)                    for w below the first cutoff,
    log p(w) = log p_head(i) + log p_i(w)       for w in cluster i,

of Grave et al. 2016 (arXiv 1609.04309, section 4). Ids must fall in frequency. Words of cluster i
are read from D / div_value^i features, and only at steps whose target is in it.
"""

from collections.abc import Sequence
from itertools import pairwise

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Integer

# Steps whose words of one cluster are scored at once; a chunk without such targets costs nothing.
_CHUNK = 128


def product(x: Float[Array, "*rows D"], weights: Float[Array, "D W"]) -> Float[Array, "*rows W"]:
    """The matrix product in single precision at least, as log probabilities need their scores."""
    kind = jnp.result_type(x, weights, jnp.float32)
    return jnp.matmul(x, weights, preferred_element_type=kind)


class AdaptiveSoftmax(nnx.Module):
    """Log probabilities of V words from features of width D.

    Attributes:
        bounds: first id of the head and of each cluster, and V.
        words: weights of the words of the head [D, bounds[1]]; None if tied.
        clusters: weights of the clusters in the head [D, number of clusters].
        down: for each cluster, weights to its features; empty if all is tied.
        up: for each cluster, weights from its features to its words; empty if all is tied.
        bias: of the words [V]; None without.
        cluster_bias: of the clusters in the head; None without.
    """

    def __init__(
        self,
        d_model: int,
        vocab_size: int,
        cutoffs: Sequence[int],
        *,
        div_value: float = 4.0,
        tied: bool = False,
        bias: bool = False,
        rngs: nnx.Rngs,
    ):
        """Draw the parameters.

        Args:
            d_model: width D of the features.
            vocab_size: number V of words.
            cutoffs: first id of each cluster.
            div_value: each cluster has so many times fewer features than the one before.
            tied: take the weights of all words from the embedding, given with each call, which
                leaves clusters their full width.
            bias: add a bias to each word and cluster.
            rngs: source of the initial parameters.

        Raises:
            ValueError: if a size or an option is out of range, or the cutoffs do not rise from at
                least 1 to less than V.
        """
        for name, value in (("d_model", d_model), ("vocab_size", vocab_size)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.bounds = (0, *cutoffs, vocab_size)
        if not cutoffs or any(first >= second for first, second in pairwise(self.bounds)):
            raise ValueError(
                "cutoffs must be one or more ids that rise, from at least 1 to less than "
                f"vocab_size = {vocab_size}, got {list(cutoffs)}"
            )
        if not div_value >= 1:
            raise ValueError(f"div_value must be at least 1, got {div_value}")
        self.tied = tied

        def weights(rows: int, columns: int) -> nnx.Param:
            return nnx.Param(jax.random.normal(rngs.params(), (rows, columns)) / rows**0.5)

        n_clusters = len(cutoffs)
        self.words = weights(d_model, self.bounds[1]) if not tied else None
        self.clusters = weights(d_model, n_clusters)
        widths = [max(1, int(d_model // div_value**i)) for i in range(1, n_clusters + 1)]
        sizes = [end - start for start, end in pairwise(self.bounds[1:])]
        drawn = [] if tied else list(zip(widths, sizes, strict=True))
        self.down = nnx.List([weights(d_model, width) for width, _ in drawn])
        self.up = nnx.List([weights(width, size) for width, size in drawn])
        self.bias = nnx.Param(jnp.zeros(vocab_size)) if bias else None
        self.cluster_bias = nnx.Param(jnp.zeros(n_clusters)) if bias else None

    def __call__(
        self,
        x: Float[Array, "*rows D"],
        targets: Integer[Array, "*rows"],
        embedding: Float[Array, "V D"] | None = None,
    ) -> Float[Array, "*rows"]:
        """Log probabilities of the targets.

        Args:
            x: features.
            targets: words, each from 0 to V - 1.
            embedding: of the words, where they are tied to it.

        Raises:
            ValueError: if x is of another width, or the embedding is missing, not wanted or of
                another shape.
        """
        self._check(x, embedding)
        features, words = x.reshape(-1, x.shape[-1]), targets.reshape(-1)
        groups = jnp.searchsorted(jnp.array(self.bounds[1:-1]), words, side="right")
        head = self._head(features, embedding)
        columns = jnp.where(groups == 0, words, self.bounds[1] + groups - 1)
        log_probs = jnp.take_along_axis(head, columns[:, None], axis=-1)[:, 0]

        @jax.checkpoint
        def within(chunk: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
            """Log probabilities within their clusters; zero for words of the head."""
            features, words, groups = chunk
            total = jnp.zeros(words.shape, log_probs.dtype)
            for group in range(1, len(self.bounds) - 1):
                total += jax.lax.cond(
                    jnp.any(groups == group),
                    lambda group=group: self._within(group, features, words, groups, embedding),
                    lambda: jnp.zeros(words.shape, log_probs.dtype),
                )
            return total

        # Sorted, the targets of a cluster lie in few chunks. Padding counts as words of the head.
        order = jnp.argsort(groups)
        size = min(_CHUNK, max(1, len(words)))
        sorted_chunks = [
            jnp.pad(part[order], [(0, -len(words) % size)] + [(0, 0)] * (part.ndim - 1)).reshape(
                -1, size, *part.shape[1:]
            )
            for part in (features, words, groups)
        ]
        added = jax.lax.map(within, tuple(sorted_chunks)).reshape(-1)[: len(words)]
        return log_probs.at[order].add(added, unique_indices=True).reshape(targets.shape)

    def log_probs(
        self, x: Float[Array, "*rows D"], embedding: Float[Array, "V D"] | None = None
    ) -> Float[Array, "*rows V"]:
        """Log probabilities of all words, for the arguments of a call."""
        self._check(x, embedding)
        head = self._head(x, embedding)
        parts = [head[..., : self.bounds[1]]]
        for group in range(1, len(self.bounds) - 1):
            within = jax.nn.log_softmax(self._scores(group, x, embedding))
            parts.append(head[..., self.bounds[1] + group - 1, None] + within)
        return jnp.concatenate(parts, axis=-1)

    def _head(self, x: Float[Array, "... D"], embedding: jax.Array | None) -> Float[Array, "... H"]:
        """Log probabilities of the words of the head, then of the clusters."""
        clusters = product(x.astype(self.clusters.dtype), self.clusters[...])
        if self.cluster_bias is not None:
            clusters += self.cluster_bias[...]
        return jax.nn.log_softmax(
            jnp.concatenate([self._scores(0, x, embedding), clusters], axis=-1)
        )

    def _scores(
        self, group: int, x: Float[Array, "... D"], embedding: jax.Array | None
    ) -> Float[Array, "... W"]:
        """Scores of the words of the head, group 0, or of a cluster."""
        words = slice(*self.bounds[group : group + 2])
        x = x.astype(self.clusters.dtype)
        if embedding is not None:
            scores = product(x, embedding[words].T)
        elif self.words is not None and group == 0:
            scores = product(x, self.words[...])
        else:
            scores = product(x @ self.down[group - 1][...], self.up[group - 1][...])
        return scores if self.bias is None else scores + self.bias[words]

    def _within(
        self,
        group: int,
        features: Float[Array, "M D"],
        words: Int[Array, " M"],
        groups: Int[Array, " M"],
        embedding: jax.Array | None,
    ) -> Float[Array, " M"]:
        """Log probabilities within one cluster; zero for words of other groups."""
        scores = self._scores(group, features, embedding)
        columns = jnp.where(groups == group, words - self.bounds[group], 0)
        chosen = jnp.take_along_axis(jax.nn.log_softmax(scores), columns[:, None], axis=-1)[:, 0]
        return jnp.where(groups == group, chosen, 0)

    def _check(self, x: jax.Array, embedding: jax.Array | None) -> None:
        d_model, vocab_size = self.clusters.shape[0], self.bounds[-1]
        if x.shape[-1] != d_model:
            raise ValueError(f"x must have width d_model = {d_model}, got shape {x.shape}")
        wanted = (vocab_size, d_model) if self.tied else None
        given = None if embedding is None else embedding.shape
        if given != wanted:
            raise ValueError(
                f"with tied = {self.tied} the shape of embedding must be {wanted}, got {given}"
            )
