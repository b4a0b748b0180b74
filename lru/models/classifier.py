"""Classifier: tokens or values in, encoder, pooling over valid steps, one linear read-out."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Integer, Key

from lru.layers.base import State
from lru.models.config import ModelConfig
from lru.models.encoder import Encoder, step_mask


def pool(
    x: Float[Array, "B T D"], lengths: Int[Array, " B"] | None, pooling: str
) -> Float[Array, "B D"] | Float[Array, "B T D"]:
    """Reduce features over the valid steps: mean, last, or none.

    A row without valid steps pools to zero.

    Raises:
        ValueError: if there is no such pooling.
    """
    if pooling not in ("mean", "last", "none"):
        raise ValueError(f"pooling must be mean, last or none, got {pooling!r}")
    if pooling == "none":
        return x
    if pooling == "mean":
        mask = step_mask(x.shape[1], lengths)
        if mask is None or lengths is None:
            return x.mean(axis=1)
        return jnp.where(mask, x, 0).sum(axis=1) / jnp.maximum(lengths, 1)[:, None].astype(x.dtype)
    if lengths is None:
        return x[:, -1]
    last = jnp.take_along_axis(x, jnp.maximum(lengths - 1, 0)[:, None, None], axis=1)[:, 0]
    return jnp.where(lengths[:, None] > 0, last, 0)


class Classifier(nnx.Module):
    """Class scores for a sequence, or for each of its steps.

    Attributes:
        encode: embedding of tokens or linear map of values, to width D.
        encoder: the blocks.
        head: read-out to C class scores.
    """

    def __init__(
        self,
        config: ModelConfig,
        n_classes: int,
        *,
        vocab_size: int | None = None,
        n_features: int | None = None,
        rngs: nnx.Rngs,
    ):
        """Build the network.

        Args:
            config: the network; its pooling `auto` means mean.
            n_classes: number C of classes.
            vocab_size: number V of token ids, for token inputs.
            n_features: width of the values at each step, for real-valued inputs.
            rngs: source of the initial parameters.

        Raises:
            ValueError: unless exactly one of vocab_size and n_features is given.
        """
        if (vocab_size is None) == (n_features is None):
            raise ValueError(
                "give either vocab_size (token inputs) or n_features (real inputs), got "
                f"vocab_size={vocab_size}, n_features={n_features}"
            )
        self.pooling = "mean" if config.pooling == "auto" else config.pooling
        if vocab_size is not None:
            self.encode = nnx.Embed(vocab_size, config.d_model, rngs=rngs)
        elif n_features is not None:
            self.encode = nnx.Linear(n_features, config.d_model, rngs=rngs)
        self.encoder = Encoder(config, rngs=rngs)
        self.head = nnx.Linear(config.d_model, n_classes, rngs=rngs)

    def __call__(
        self,
        inputs: Integer[Array, "B T"] | Float[Array, "B T F"],
        state: list[State] | None = None,
        *,
        lengths: Int[Array, " B"] | None = None,
        resets: Bool[Array, "B T"] | None = None,
        train: bool = False,
        key: Key[Array, ""] | None = None,
    ) -> tuple[Float[Array, "B C"] | Float[Array, "B T C"], list[State]]:
        """Score the classes.

        Args:
            inputs: token ids, or real values.
            state: as for `Encoder.__call__`, as are the other arguments.
            lengths: number of valid steps of each row.
            resets: True where a row starts afresh.
            train: training mode of the norms.
            key: source of the dropout masks.

        Returns:
            Class scores (logits), one a sequence, or one a step without pooling; and the state.
        """
        x, state = self.encoder(
            self.encode(inputs), state, lengths=lengths, resets=resets, train=train, key=key
        )
        return self.head(pool(x, lengths, self.pooling)), state
