"""Minimal LSTM: h_t = f_t h_{t-1} + i_t g(k_t) with gates of the input alone that add up to 1.

f = sigmoid(W_f x) and i = sigmoid(W_i x), each over their sum; k and g as in `mingru.py`. Feng et
al. 2024 (arXiv 2410.01201), section 3.2. The share f / (f + i) is the sigmoid of log f - log i.
"""

from typing import ClassVar

import jax
from jaxtyping import Array, Float

from lru.layers.base import LAYERS
from lru.layers.mingru import MinGRU


@LAYERS.register("minlstm")
class MinLSTM(MinGRU):
    """Minimal LSTM, whose gates read the input alone and add up to 1.

    Attributes:
        weight: input weights of candidate, forget and input gate [D, 3 N].
        bias: of all three [3 N]; None without biases.
    """

    n_parts = 3

    def keeping(self, *gates: Float[Array, "B T N"]) -> Float[Array, "B T N"]:
        """See `MinGRU.keeping`."""
        f, i = gates
        return jax.nn.log_sigmoid(f) - jax.nn.log_sigmoid(i)


class MinLSTMCell(MinLSTM):
    """The same without a read-out."""

    reads_out: ClassVar[bool] = False
