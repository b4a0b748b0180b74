"""Layers whose output is their state h [B, T, N], read out by one matrix if N is not D.

Every such layer has a cell: the same without a read-out, for stacks of other widths than D.
"""

from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Integer, Key

from lru.layers.base import RecurrentLayer, known_compute_dtype, without_padding
from lru.scan.products import product


class CellLayer(RecurrentLayer):
    """Base of the layers that give out their state.

    Attributes:
        main_weight: name of the weights from state to gates, or of the kernels of a QRNN: those
            that weight dropout drops.
        compute_dtype: type of matrix products.
        always_reads_out: whether the read-out is there also where N is D.
        readout: linear map from N to D without bias; None where N is D, and in a cell.
    """

    main_weight: ClassVar[str]
    reads_out: ClassVar[bool] = True
    always_reads_out: ClassVar[bool] = False

    def __init__(
        self, d_model: int, d_hidden: int, *, compute_dtype: str = "float32", rngs: nnx.Rngs
    ):
        """Draw the read-out."""
        super().__init__(d_model, d_hidden)
        self.compute_dtype = known_compute_dtype(compute_dtype)
        self.readout = (
            nnx.Linear(d_hidden, d_model, use_bias=False, rngs=rngs)
            if self.reads_out and (d_hidden != d_model or self.always_reads_out)
            else None
        )

    def read_out(
        self, h: Float[Array, "B T N"], dtype: DTypeLike, lengths: Integer[Array, " B"] | None
    ) -> Float[Array, "B T M"]:
        """The output, zero at padding: M is D, or N in a cell."""
        if self.readout is None:
            return h.astype(dtype)
        y = product(h, self.readout.kernel[...], self.compute_dtype).astype(dtype)
        return without_padding(y, lengths)


def uniform(key: Key[Array, ""], shape: tuple[int, ...], width: int) -> Float[Array, "..."]:
    """Draw from U(-1/sqrt(width), 1/sqrt(width)), as PyTorch's linear and recurrent layers do."""
    bound = width**-0.5
    return jax.random.uniform(key, shape, jnp.float32, minval=-bound, maxval=bound)


def chrono_biases(key: Key[Array, ""], n: int, steps: int) -> Float[Array, " N"]:
    """Draw biases of forget gates for memories of 1 to so many steps, as log U(1, steps - 1).

    Chrono initialisation (Tallec and Ollivier 2018, arXiv 1804.11188, section 2.2): a gate at the
    sigmoid of b forgets all but 1/e in about 1 + exp(b) steps. Input gates take their negatives.

    Raises:
        ValueError: if the number of steps is less than 2.
    """
    if steps < 2:
        raise ValueError(f"chrono must be None or at least 2 steps, got {steps}")
    draws = jax.random.uniform(key, (n,), jnp.float32)
    return jnp.log1p(draws * (steps - 2))


def remember(
    bias: nnx.Param | None, n: int, steps: int | None, signs: Mapping[int, float], rngs: nnx.Rngs
) -> None:
    """Draw biases of gates by `chrono_biases`, unless the number of steps is None.

    Args:
        bias: of all gates, N numbers one after the other.
        n: width N.
        steps: the longest memory.
        signs: by what the draw is multiplied, by gate.
        rngs: source of the draw.

    Raises:
        ValueError: if there are no biases, or the number of steps is less than 2.
    """
    if steps is None:
        return
    if bias is None:
        raise ValueError(f"chrono must be None without biases, got {steps}")
    drawn, values = chrono_biases(rngs.params(), n, steps), bias[...].reshape(-1, n)
    for gate, sign in signs.items():
        values = values.at[gate].set(sign * drawn)
    bias[...] = values.reshape(bias.shape)


def uniform_linear(d_in: int, d_out: int, *, rngs: nnx.Rngs) -> nnx.Linear:
    """A linear layer drawn as PyTorch's: weights and biases within 1/sqrt(d_in)."""

    def draw(key: Key[Array, ""], shape: tuple[int, ...], dtype: DTypeLike) -> Float[Array, "..."]:
        return uniform(key, shape, d_in).astype(dtype)

    return nnx.Linear(d_in, d_out, kernel_init=draw, bias_init=draw, rngs=rngs)
