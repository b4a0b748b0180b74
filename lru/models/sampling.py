"""Draws of the next token from logits: temperature, then top-k, then top-p.

Top-k keeps the k most probable tokens; top-p, or nucleus sampling (Holtzman et al. 2020, arXiv
1904.09751, section 3.1), the fewest most probable ones that together have probability p. Among
equals the smaller id comes first, as in an argmax.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key


@dataclass(frozen=True)
class Sampler:
    """A rule of drawing tokens.

    Attributes:
        temperature: divides the logits; 0 takes the most probable token.
        top_k: draw from so many of the most probable tokens; None, or more than there are, for all.
        top_p: draw from the fewest most probable tokens with so much of the probability that
            temperature and top-k leave; 1 for all.

    Raises:
        ValueError: if a value is out of range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0

    def __post_init__(self):
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature must be finite and not negative, got {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}")

    def __call__(self, key: Key[Array, ""], logits: Float[Array, "B V"]) -> Int[Array, " B"]:
        """Draw one token a row."""
        if self.temperature == 0:
            return logits.argmax(axis=-1)
        return jax.random.categorical(key, self.log_probs(logits))

    def log_probs(self, logits: Float[Array, "B V"]) -> Float[Array, "B V"]:
        """Log probabilities of the draws; minus infinity for tokens that are never drawn."""
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        top_k = 1 if self.temperature == 0 else self.top_k
        # The largest stays zero however small the temperature.
        scaled = logits - logits.max(axis=-1, keepdims=True)
        scaled = jnp.where(scaled == 0, 0, scaled / (self.temperature or 1))
        order = jnp.argsort(-scaled, axis=-1, stable=True)
        ranks = jnp.argsort(order, axis=-1)
        if top_k is not None:
            scaled = jnp.where(ranks < top_k, scaled, -jnp.inf)
        if self.top_p < 1:
            probs = jnp.take_along_axis(jax.nn.softmax(scaled), order, axis=-1)
            before = jnp.cumsum(probs, axis=-1) - probs
            kept = jnp.take_along_axis(before, ranks, axis=-1) < self.top_p
            scaled = jnp.where(kept, scaled, -jnp.inf)
        return jax.nn.log_softmax(scaled)
