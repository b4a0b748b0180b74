"""Two-tower network: one encoder reads both documents of a pair, a small MLP compares them.

With u and v the pooled features of the documents, the MLP reads [u, v, u * v, u - v]: the
heuristic matching of Mou et al. 2016 (arXiv 1512.08422, section 3.3), as in the public code of the
Long Range Arena (arXiv 2011.04006).
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Integer, Key

from lru.models.body import make_body
from lru.models.classifier import make_token_encoder, pool
from lru.models.config import ModelConfig


class TwoTower(nnx.Module):
    """Class scores for pairs of token sequences.

    Attributes:
        encode: embedding or one-hot vectors of tokens, to width D.
        encoder: the recurrent layers, the same ones for both documents.
        hidden: from the compared features, to width D.
        head: read-out to C class scores.
    """

    def __init__(
        self,
        config: ModelConfig,
        n_classes: int,
        *,
        vocab_size: int,
        pooling: str = "mean",
        one_hot: bool = False,
        rngs: nnx.Rngs,
    ):
        """Build the network.

        Args:
            config: the network.
            n_classes: number C of classes.
            vocab_size: number V of token ids.
            pooling: how the features of a document become one vector: mean or last.
            one_hot: read tokens as one-hot vectors instead of a trained embedding.
            rngs: source of the initial parameters.

        Raises:
            ValueError: if one-hot vectors do not fit into D.
        """
        self.pooling = pooling
        self.encode = make_token_encoder(vocab_size, config.d_model, one_hot, rngs)
        self.encoder = make_body(config, rngs=rngs)
        self.hidden = nnx.Linear(4 * config.d_model, config.d_model, rngs=rngs)
        self.head = nnx.Linear(config.d_model, n_classes, rngs=rngs)

    def __call__(
        self,
        inputs: Integer[Array, "B 2 T"],
        *,
        lengths: Integer[Array, "B 2"] | None = None,
        train: bool = False,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "B C"]:
        """Score the classes; batch statistics are taken over both documents of all pairs.

        Args:
            inputs: token ids of both documents.
            lengths: number of valid steps of each document; None if all are valid.
            train: training mode of the norms.
            key: source of the dropout masks.

        Returns:
            Class scores (logits).
        """
        documents = inputs.reshape(-1, inputs.shape[-1])
        lengths = None if lengths is None else lengths.reshape(-1)
        x, _ = self.encoder(self.encode(documents), lengths=lengths, train=train, key=key)
        features, _ = pool(self.encoder.drop_outputs(x, key), lengths, self.pooling)
        u, v = jnp.unstack(features.reshape(len(inputs), 2, -1), axis=1)
        compared = jnp.concatenate([u, v, u * v, u - v], axis=-1)
        return self.head(nnx.gelu(self.hidden(compared)))
