"""Vector sum: a network that repeats by construction, each symbol weaker than the one before it.

The state is h = sum over t of gamma^t E[x_t]; step t of the decoder takes out of it what was said
before, gamma^(t-1) E[x_(t-1)], and reads the symbol that is strongest then, W h + b. Csordás et
al. 2024 (arXiv 2408.10920) show with it that such an "onion" code is enough to repeat.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Integer, Key

from lru.layers.cell import uniform_linear
from lru.models.encoder_decoder import after_start
from lru.models.network import NETWORKS, Network


@NETWORKS.register("vector-sum")
class VectorSum(Network):
    """Sum of vectors that shrink with their place, for the task of repeating.

    Attributes:
        embedding: vectors of the V symbols and of the start [V + 1, N].
        head: read-out to the scores of the symbols.
        ratio: gamma, the factor from place to place.
    """

    task = "repeat"

    def __init__(self, n_symbols: int, *, width: int = 64, ratio: float = 0.4, rngs: nnx.Rngs):
        """Draw the parameters.

        Args:
            n_symbols: number V of symbols.
            width: width N of the vectors.
            ratio: factor on a vector from place to place.
            rngs: source of the initial parameters.

        Raises:
            ValueError: if a value is out of range.
        """
        if width < 1:
            raise ValueError(f"width must be at least 1, got {width}")
        if not 0 < ratio < 1:
            raise ValueError(f"ratio must be between 0 and 1, got {ratio}")
        self.embedding = nnx.Param(jax.random.normal(rngs.params(), (n_symbols + 1, width)))
        self.head = uniform_linear(width, n_symbols, rngs=rngs)
        self.ratio = ratio

    def __call__(
        self,
        symbols: Integer[Array, "B T"],
        *,
        lengths: Integer[Array, " B"] | None = None,
        train: bool = False,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "B T V"]:
        """Scores (logits) of the symbols to repeat, each after the true ones before it.

        Args:
            symbols: ids from 0; anything at padding.
            lengths: number of symbols of each row; None if all are valid.
            train: has no meaning here.
            key: has none either.
        """
        return self.decode(self.encode(symbols, lengths=lengths), symbols)

    def encode(
        self, symbols: Integer[Array, "B T"], *, lengths: Integer[Array, " B"] | None = None
    ) -> Float[Array, "B N"]:
        """The sum over the symbols of each row."""
        steps = symbols.shape[1]
        scales = self.ratio ** jnp.arange(steps)
        if lengths is not None:
            scales = jnp.where(jnp.arange(steps) < lengths[:, None], scales, 0)
        return (scales[..., None] * self.embedding[...][symbols]).sum(axis=1)

    def decode(
        self,
        state: Float[Array, "B N"],
        symbols: Integer[Array, "B T"],
        *,
        lengths: Integer[Array, " B"] | None = None,
    ) -> Float[Array, "B T V"]:
        """Scores of as many symbols from a state; anything beyond the end of a row."""
        del lengths
        said = after_start(symbols, self.embedding.shape[0] - 1)
        scales = self.ratio ** (jnp.arange(symbols.shape[1]) - 1.0)
        taken = jnp.cumsum(scales[:, None] * self.embedding[...][said], axis=1)
        return self.head(state[:, None] - taken)
