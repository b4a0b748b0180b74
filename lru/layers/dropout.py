"""Dropout of language models: of words, of features with one mask for all steps, of weights.

Merity et al. 2017 (arXiv 1708.02182, sections 2 and 4.3); masks of words and of all steps are those
of Gal & Ghahramani 2016 (arXiv 1512.05287). What is kept is divided by the share that is kept.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Integer, Key

from lru.layers.cell import CellLayer


def drop(
    x: Float[Array, "..."], rate: float, key: Key[Array, ""] | None, mask: tuple[Any, ...]
) -> Float[Array, "..."]:
    """Drop entries of x by a mask of a shape that is broadcast to that of x; none without a key.

    Sizes may be symbolic, as in an export.
    """
    if key is None or rate == 0:
        return x
    kept = jax.random.bernoulli(key, 1 - rate, mask)
    return jnp.where(kept, x / (1 - rate), 0)


def drop_features(
    x: Float[Array, "B T D"], rate: float, key: Key[Array, ""] | None, *, locked: bool
) -> Float[Array, "B T D"]:
    """Drop features: if locked, the same ones at all steps of a row."""
    rows, steps, width = x.shape
    return drop(x, rate, key, (rows, 1 if locked else steps, width))


def embed(
    table: Float[Array, "V D"],
    tokens: Integer[Array, "B T"],
    rate: float,
    key: Key[Array, ""] | None,
) -> Float[Array, "B T D"]:
    """Look tokens up; dropped ones are zero wherever they occur in the batch."""
    x = table[tokens]
    if key is None or rate == 0:
        return x
    kept = jax.random.bernoulli(key, 1 - rate, table.shape[:1])[tokens]
    return jnp.where(kept[..., None], x / (1 - rate), 0)


def drop_weights(cell: CellLayer, rate: float, key: Key[Array, ""] | None) -> CellLayer:
    """The cell with some of its main weights dropped, for one call; itself without a key."""
    if key is None or rate == 0:
        return cell
    copy = nnx.clone(cell)
    weight = getattr(copy, cell.main_weight)
    weight[...] = drop(weight[...], rate, key, weight.shape)
    return copy
