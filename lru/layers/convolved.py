"""A short convolution before a layer: y = layer(conv(x)), for layers whose gates see one input.

Published blocks of gated linear recurrences have one of width 4: Griffin (De et al. 2024, arXiv
2402.19427, section 2.3, figure 2c) before its RG-LRU, Mamba (arXiv 2312.00752, figure 3) inside.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from flax import nnx
from jaxtyping import Array, Bool, Float, Inexact, Integer, Key

from lru.layers.base import RecurrentLayer, State, noise
from lru.layers.convolution import DepthwiseConvolution


class ConvolvedState(NamedTuple):
    """State of a convolved layer: that of the layer, and the last inputs."""

    layer: State
    window: Float[Array, "B W D"] | None


class Convolved(RecurrentLayer):
    """Wraps a layer of any kind; a causal convolution of each channel goes before it.

    Attributes:
        convolution: of the inputs, with bias.
        layer: what reads its outputs.
    """

    def __init__(self, layer: RecurrentLayer, window: int, *, rngs: nnx.Rngs):
        """Draw the convolution.

        Args:
            layer: to go after it.
            window: width K of the convolution, at least 2.
            rngs: source of the initial parameters.

        Raises:
            ValueError: if the window is less than 2.
        """
        if window < 2:
            raise ValueError(f"window must be at least 2, got {window}")
        super().__init__(layer.d_model, layer.d_hidden)
        self.layer, self.noisy = layer, layer.noisy
        self.convolution = DepthwiseConvolution(layer.d_model, window, rngs=rngs)

    def eigenvalues(self) -> Mapping[str, jax.Array]:
        """The spectra of the layer."""
        return self.layer.eigenvalues()

    def initial_state(self, batch_size: int) -> ConvolvedState:
        """The initial state of the layer, and zeros."""
        window = self.convolution.initial_window(batch_size)
        return ConvolvedState(self.layer.initial_state(batch_size), window)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        state: ConvolvedState | None = None,
        *,
        lengths: Integer[Array, " B"] | None = None,
        resets: Bool[Array, "B T"] | None = None,
        reverse: bool = False,
        key: Key[Array, ""] | None = None,
    ) -> tuple[Float[Array, "B T D"], ConvolvedState]:
        """See `RecurrentLayer.__call__`."""
        y, start, window = self._convolved(x, state, lengths, resets, reverse)
        added = noise(self.layer, key)
        y, last = self.layer(y, start, lengths=lengths, resets=resets, reverse=reverse, **added)
        return y.astype(x.dtype), ConvolvedState(last, window)

    def observe(
        self,
        x: Float[Array, "B T D"],
        state: ConvolvedState | None = None,
        *,
        lengths: Integer[Array, " B"] | None = None,
        resets: Bool[Array, "B T"] | None = None,
        reverse: bool = False,
    ) -> dict[str, Inexact[Array, "B T N"]]:
        """See `RecurrentLayer.observe`: what happens inside the layer."""
        y, start, _ = self._convolved(x, state, lengths, resets, reverse)
        return self.layer.observe(y, start, lengths=lengths, resets=resets, reverse=reverse)

    def _convolved(
        self, x: Array, state: ConvolvedState | None, lengths: Any, resets: Any, reverse: bool
    ) -> tuple[Array, State, Array | None]:
        """The inputs of the layer, its state to start from, and the window to hand on."""
        x, start, options = self.prepared(x, state, lengths, resets, reverse)
        # The layer returns to its own state, and a convolution to zeros.
        del options["reset_to"]
        y, window = self.convolution(x, start.window, **options)
        return y, start.layer, window
