"""Minimal LSTM: h_t = f_t h_{t-1} + i_t g(k_t) with gates of the input alone that add up to 1.

f = sigmoid(W_f x) and i = sigmoid(W_i x), each over their sum; k and g as in `mingru.py`. Feng et
al. 2024 (arXiv 2410.01201), section 3.2.
"""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lru.layers.base import LAYERS
from lru.layers.mingru import MinGRU


@jax.custom_jvp
def _share(f: Array, i: Array) -> Array:
    """Share of the first sigmoid in the sum of both, also where both are too small for floats."""
    quotient = jnp.exp(jnp.minimum(i, 0) - jnp.minimum(f, 0))
    return 1 / (1 + quotient * (1 + jnp.exp(-jnp.abs(f))) / (1 + jnp.exp(-jnp.abs(i))))


@_share.defjvp
def _(arguments: tuple[Array, Array], directions: tuple[Array, Array]) -> tuple[Array, Array]:
    (f, i), (df, di) = arguments, directions
    share = _share(f, i)
    change = jax.nn.sigmoid(-f) * df - jax.nn.sigmoid(-i) * di
    return share, share * (1 - share) * change


@LAYERS.register("minlstm")
class MinLSTM(MinGRU):
    """Minimal LSTM, whose gates read the input alone and add up to 1.

    Attributes:
        weight: input weights of candidate, forget and input gate [D, 3 N].
        bias: of all three [3 N]; None without biases.
    """

    n_parts = 3
    chrono_signs: ClassVar = {1: 1.0, 2: -1.0}

    def shares(
        self, *gates: Float[Array, "B T N"]
    ) -> tuple[Float[Array, "B T N"], Float[Array, "B T N"]]:
        """See `MinGRU.shares`."""
        f, i = gates
        return _share(f, i), _share(i, f)


class MinLSTMCell(MinLSTM):
    """The same without a read-out."""

    reads_out: ClassVar[bool] = False
