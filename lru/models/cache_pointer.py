"""Continuous cache: at evaluation, words of the recent past are more probable (arXiv 1612.04426).

    p_t(w) = (1 - weight) p_model(w) + weight * sum_i softmax_i(theta h_i . h_t) [w_i = w]

over the last `window` pairs (h_i, w_i) of a feature and the word that came after it: Grave et al.
2016, sections 3 and 4 with linear interpolation. Before the first pair the model is left as it is;
after it the cache is used, however few pairs it holds.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

NO_WORD = -1


class Cache(NamedTuple):
    """The last pairs of each row, the oldest first.

    Attributes:
        features: what the model predicted from [B, window, D].
        words: what came [B, window]; `NO_WORD` in places that are not filled yet.
    """

    features: Float[Array, "B W D"]
    words: Int[Array, "B W"]


@dataclass(frozen=True)
class CachePointer:
    """A mixture of a model and a cache.

    Attributes:
        window: pairs in the cache.
        theta: how much the cache prefers features that are like the present one.
        weight: share of the cache in the mixture, the paper's lambda.

    Raises:
        ValueError: if a value is out of range.
    """

    window: int
    theta: float
    weight: float

    def __post_init__(self):
        if self.window < 1:
            raise ValueError(f"window must be at least 1, got {self.window}")
        if not 0 <= self.theta < math.inf:
            raise ValueError(f"theta must be finite and not negative, got {self.theta}")
        if not 0 <= self.weight < 1:
            raise ValueError(f"weight must be in [0, 1), got {self.weight}")

    def empty(self, batch_size: int, d_model: int) -> Cache:
        """A cache before the first pair."""
        return Cache(
            jnp.zeros((batch_size, self.window, d_model)),
            jnp.full((batch_size, self.window), NO_WORD, jnp.int32),
        )

    def __call__(
        self,
        features: Float[Array, "B T D"],
        targets: Int[Array, "B T"],
        log_probs: Float[Array, "B T"],
        cache: Cache,
    ) -> tuple[Float[Array, "B T"], Cache]:
        """Mix over a stretch of the stream of each row.

        Args:
            features: what the model predicts from at each step.
            targets: the word that comes; `NO_WORD` for padding, which the cache leaves out.
            log_probs: of the targets by the model; they pass through unchanged at padding.
            cache: of the stretch before.

        Returns:
            Log probabilities of the targets by the mixture, and the cache after the stretch.

        Raises:
            ValueError: if the cache is of another window, width or number of rows.
        """
        rows, steps, width = features.shape
        if cache.features.shape != (rows, self.window, width):
            raise ValueError(
                f"cache must have features of shape {(rows, self.window, width)}, "
                f"got {cache.features.shape}"
            )
        features = features.astype(cache.features.dtype)
        keys = jnp.concatenate([cache.features, features], axis=1)
        words = jnp.concatenate([cache.words, targets.astype(cache.words.dtype)], axis=1)
        scores = self.theta * jnp.einsum("btd,bsd->bts", features, keys)
        # Step t stands at place window + t, and sees the places t to window + t - 1.
        age = jnp.arange(steps)[:, None] + self.window - jnp.arange(self.window + steps)
        seen = (age >= 1) & (age <= self.window) & (words != NO_WORD)[:, None]
        scores = jnp.where(seen, scores, -jnp.inf)
        hits = jnp.where(words[:, None] == targets[..., None], scores, -jnp.inf)
        total = jax.nn.logsumexp(scores, axis=-1)
        from_cache = jax.nn.logsumexp(hits, axis=-1) - total
        mixed = jnp.logaddexp(
            math.log1p(-self.weight) + log_probs, jnp.log(self.weight) + from_cache
        )
        usable = seen.any(axis=-1) & (targets != NO_WORD)
        mixed = jnp.where(usable, mixed, log_probs)
        return mixed, Cache(keys[:, steps:], words[:, steps:])
