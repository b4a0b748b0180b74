"""A recurrence of your own, in a file of your own: leaky integrators with a learned start.

lru train --plugins examples/own_layer.py --model leaky --half_life 20 \
    --dataset adding-classification --n_layers 2 --d_model 32 --d_hidden 32 --epochs 5

h_t = a h_{t-1} + (1 - a) B x_t and y_t = C h_t, elementwise a in (0, 1). The tests of all layers:

pytest tests/layers/test_law.py --plugins examples/own_layer.py -k leaky
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from lru.layers import (
    LAYERS,
    RecurrentLayer,
    RecurrentParam,
    known_compute_dtype,
    without_padding,
)
from lru.scan import linear_scan
from lru.scan.products import product


@LAYERS.register("leaky")
class LeakyIntegrators(RecurrentLayer):
    """Exponential moving averages of the input, with learned half-lives and a learned start."""

    def __init__(
        self,
        d_model: int,
        d_hidden: int,
        *,
        half_life: float = 8.0,
        compute_dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        """Draw the parameters.

        Args:
            d_model: width D of inputs and outputs.
            d_hidden: number N of integrators.
            half_life: steps after which half of a state is left, at first.
            compute_dtype: type of matrix products; bfloat16 halves what they read.
            rngs: source of the initial parameters.
        """
        super().__init__(d_model, d_hidden)
        if not half_life > 0:
            raise ValueError(f"half_life must be positive, got {half_life}")
        self.compute_dtype = known_compute_dtype(compute_dtype)
        kept = 0.5 ** (1 / half_life)
        draw = nnx.initializers.lecun_normal()
        self.a_logit = RecurrentParam(jnp.full(d_hidden, math.log(kept / (1 - kept)), jnp.float32))
        self.h_0 = RecurrentParam(jnp.zeros(d_hidden, jnp.float32))
        self.B = nnx.Param(draw(rngs.params(), (d_model, d_hidden), jnp.float32))
        self.C = nnx.Param(draw(rngs.params(), (d_hidden, d_model), jnp.float32))

    def initial_state(self, batch_size: int) -> Float[Array, "B N"]:
        """The learned start."""
        dtype = jnp.result_type(jnp.float32, self.a_logit[...], self.B[...], self.h_0[...])
        return jnp.broadcast_to(self.h_0[...].astype(dtype), (batch_size, self.d_hidden))

    def __call__(
        self, x: Float[Array, "B T D"], state: Any = None, **options: Any
    ) -> tuple[Float[Array, "B T D"], Float[Array, "B N"]]:
        """See `RecurrentLayer.__call__`."""
        h, last = self._scanned(x, state, **options)
        y = product(h, self.C[...], self.compute_dtype).astype(x.dtype)
        return without_padding(y, options.get("lengths")), last

    def observe(
        self, x: Float[Array, "B T D"], state: Any = None, **options: Any
    ) -> dict[str, Float[Array, "B T N"]]:
        """See `RecurrentLayer.observe`."""
        return {"state": self._scanned(x, state, **options)[0]}

    def _scanned(
        self,
        x: Float[Array, "B T D"],
        state: Float[Array, "B N"] | None,
        *,
        lengths: Array | None = None,
        resets: Array | None = None,
        reverse: bool = False,
    ) -> tuple[Float[Array, "B T N"], Float[Array, "B N"]]:
        x, start, options = self.prepared(x, state, lengths, resets, reverse)
        a = jax.nn.sigmoid(self.a_logit[...])
        read = product(x.astype(self.B[...].dtype), self.B[...], self.compute_dtype)
        return linear_scan(a, (1 - a) * read, start, **options)

    def eigenvalues(self) -> dict[str, Float[Array, " N"]]:
        """The factors a [N]."""
        return {"": jax.nn.sigmoid(self.a_logit[...])}
