"""Classifier: tokens or values in, encoder, pooling over valid steps, one linear read-out."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Inexact, Int, Integer, Key

from lru.layers.base import State
from lru.models.body import make_body
from lru.models.config import ModelConfig
from lru.models.encoder import step_mask
from lru.scan.methods import step_counts


class Pooled(NamedTuple):
    """Sums of the steps so far, for pooling.

    Attributes:
        features: the sum of their features, or those of the last step [B, D]; zero before any.
        steps: how many they are [B].
    """

    features: Float[Array, "B D"]
    steps: Int[Array, " B"]


class ClassifierState(NamedTuple):
    """State of a classifier from one stretch of a sequence to the next.

    Attributes:
        blocks: one state a block.
        pooled: None without pooling.
    """

    blocks: list[State]
    pooled: Pooled | None


def pool(
    x: Float[Array, "B T D"],
    lengths: Integer[Array, " B"] | None,
    pooling: str,
    before: Pooled | None = None,
) -> tuple[Float[Array, "B D"] | Float[Array, "B T D"], Pooled | None]:
    """Reduce features over the valid steps: mean, last, or none.

    A row without valid steps pools to zero.

    Args:
        x: features.
        lengths: number of valid steps of each row; None if all are valid.
        pooling: how to reduce.
        before: what was gathered of earlier steps, which count as well; None if there are none.

    Returns:
        The features, and what was gathered up to here.

    Raises:
        ValueError: if there is no such pooling.
    """
    if pooling not in ("mean", "last", "none"):
        raise ValueError(f"pooling must be mean, last or none, got {pooling!r}")
    if pooling == "none":
        return x, None
    lengths = step_counts(lengths, x.shape[1])
    if before is None:
        before = start_pooling(x[:, 0])
    if pooling == "mean":
        mask = step_mask(x, lengths)
        valid = x if mask is None else jnp.where(mask, x, 0)
        features = before.features + valid.sum(axis=1, dtype=before.features.dtype)
    elif lengths is None:
        features = x[:, -1].astype(before.features.dtype)
    else:
        last = jnp.take_along_axis(x, jnp.maximum(lengths - 1, 0)[:, None, None], axis=1)[:, 0]
        features = jnp.where(lengths[:, None] > 0, last, before.features)
    new = x.shape[1] if lengths is None else lengths.astype(before.steps.dtype)
    gathered = Pooled(features, before.steps + new)
    if pooling == "mean":
        features = features / jnp.maximum(gathered.steps, 1)[:, None].astype(features.dtype)
    return features.astype(x.dtype), gathered


def start_pooling(like: Float[Array, "B D"]) -> Pooled:
    """Nothing gathered yet, of features that are like these."""
    features = jnp.zeros_like(like, jnp.promote_types(like.dtype, jnp.float32))
    return Pooled(features, jnp.zeros(like.shape[0], jnp.int32))


class OneHot(nnx.Module):
    """One-hot vectors of tokens, in place of an embedding: id k sets number k - 1 of D.

    Id 0, which pads, is zero. There are no parameters.
    """

    def __init__(self, vocab_size: int, d_model: int):
        """Take the sizes.

        Args:
            vocab_size: number V of token ids.
            d_model: width D of the vectors.

        Raises:
            ValueError: if D is less than V - 1.
        """
        if d_model < vocab_size - 1:
            raise ValueError(
                f"d_model must be at least {vocab_size - 1} to read {vocab_size} tokens as one-hot "
                f"vectors, of which padding is zero, got {d_model}"
            )
        self.d_model = d_model

    def __call__(self, ids: Integer[Array, "..."]) -> Float[Array, "... D"]:
        """The vectors, float32."""
        return jax.nn.one_hot(ids.astype(jnp.int32) - 1, self.d_model, dtype=jnp.float32)


def make_token_encoder(
    vocab_size: int, d_model: int, one_hot: bool, rngs: nnx.Rngs
) -> nnx.Embed | OneHot:
    """The map from token ids to vectors of width D: `OneHot`, or a trained embedding."""
    if one_hot:
        return OneHot(vocab_size, d_model)
    return nnx.Embed(vocab_size, d_model, rngs=rngs)


class Classifier(nnx.Module):
    """Class scores for a sequence, or for each of its steps.

    Attributes:
        encode: embedding or one-hot vectors of tokens, or linear map of values, to width D.
        encoder: the recurrent layers.
        head: read-out to C class scores.
    """

    def __init__(
        self,
        config: ModelConfig,
        n_classes: int,
        *,
        vocab_size: int | None = None,
        n_features: int | None = None,
        pooling: str = "mean",
        one_hot: bool = False,
        rngs: nnx.Rngs,
    ):
        """Build the network.

        Args:
            config: the network.
            n_classes: number C of classes.
            vocab_size: number V of token ids, for token inputs.
            n_features: width of the values at each step, for real-valued inputs.
            pooling: how features become one vector: mean, last, or none for one prediction a step.
            one_hot: read tokens as one-hot vectors instead of a trained embedding.
            rngs: source of the initial parameters.

        Raises:
            ValueError: unless exactly one of vocab_size and n_features is given; if one-hot vectors
                are asked of values, or do not fit into D.
        """
        if (vocab_size is None) == (n_features is None):
            raise ValueError(
                "give either vocab_size (token inputs) or n_features (real inputs), got "
                f"vocab_size={vocab_size}, n_features={n_features}"
            )
        if one_hot and vocab_size is None:
            raise ValueError("one_hot must be False for real inputs, got True")
        self.pooling = pooling
        if vocab_size is not None:
            self.encode = make_token_encoder(vocab_size, config.d_model, one_hot, rngs)
        elif n_features is not None:
            self.encode = nnx.Linear(n_features, config.d_model, rngs=rngs)
        self.encoder = make_body(config, rngs=rngs)
        self.head = nnx.Linear(config.d_model, n_classes, rngs=rngs)

    def __call__(
        self,
        inputs: Integer[Array, "B T"] | Float[Array, "B T F"],
        state: ClassifierState | None = None,
        *,
        lengths: Integer[Array, " B"] | None = None,
        resets: Bool[Array, "B T"] | None = None,
        train: bool = False,
        key: Key[Array, ""] | None = None,
    ) -> tuple[Float[Array, "B C"] | Float[Array, "B T C"], ClassifierState]:
        """Score the classes.

        Args:
            inputs: token ids, or real values.
            state: what an earlier stretch of the sequence left; None to start afresh.
            lengths: number of valid steps of each row.
            resets: True where a row starts afresh; pooling goes on over them.
            train: training mode of the norms.
            key: source of the dropout masks.

        Returns:
            Class scores (logits), one a sequence, or one a step without pooling; and the state.
            Scores of a sequence are those of all its steps so far, earlier stretches included.

        Raises:
            ValueError: if an argument has the wrong shape.
        """
        features = getattr(self.encode, "in_features", None)
        if inputs.ndim != (2 if features is None else 3) or features not in (
            None,
            inputs.shape[-1],
        ):
            allowed = "token ids [B, T]" if features is None else f"values [B, T, F = {features}]"
            raise ValueError(f"inputs have shape {inputs.shape}, but {allowed} are allowed")
        blocks, pooled = (None, None) if state is None else state
        x, blocks = self.encoder(
            self.encode(inputs), blocks, lengths=lengths, resets=resets, train=train, key=key
        )
        x, pooled = pool(self.encoder.drop_outputs(x, key), lengths, self.pooling, pooled)
        return self.head(x), ClassifierState(blocks, pooled)

    def observe(
        self,
        inputs: Integer[Array, "B T"] | Float[Array, "B T F"],
        lengths: Integer[Array, " B"] | None = None,
    ) -> list[dict[str, Inexact[Array, "B T N"]]]:
        """Record what happens inside each layer; see `Body.observe`.

        Args:
            inputs: token ids, or real values.
            lengths: number of valid steps of each row.
        """
        return self.encoder.observe(self.encode(inputs), lengths=lengths)

    def initial_state(self, batch_size: int) -> ClassifierState:
        """The state before the first step."""
        blocks = self.encoder.initial_state(batch_size)
        if self.pooling == "none":
            return ClassifierState(blocks, None)
        kernel = self.head.kernel[...]
        like = jnp.zeros((batch_size, kernel.shape[0]), kernel.dtype)
        return ClassifierState(blocks, start_pooling(like))

    def step(
        self, inputs_t: Integer[Array, " B"] | Float[Array, "B F"], state: ClassifierState
    ) -> tuple[Float[Array, "B C"], ClassifierState]:
        """Take in one step, in evaluation mode; the scores of the sequence up to it.

        Without pooling they are the scores of this step.

        Raises:
            NoStepError: if the recurrences have no step mode.
        """
        x, blocks = self.encoder.step(self.encode(inputs_t), state.blocks)
        x, pooled = pool(x[:, None], None, self.pooling, state.pooled)
        x = x[:, 0] if self.pooling == "none" else x
        return self.head(x), ClassifierState(blocks, pooled)
