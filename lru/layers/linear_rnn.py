"""Dense linear recurrence: h_t = A h_{t-1} + B x_t, y_t = C h_t + D ⊙ x_t, all real.

Orvieto et al. 2023 (arXiv 2303.06349), section 3.1; A by the rules of `initializers.py`.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Complex, Float, Integer

from lru.layers.base import LAYERS, RecurrentParam, zeros
from lru.layers.chunks import ChunkedLayer, skip
from lru.layers.initializers import (
    LENGTH,
    MATRIX_INITIALIZERS,
    Ring,
    matrix_eigenvalues,
    ring_for,
)
from lru.scan import DENSE_METHODS, dense_scan
from lru.scan.products import product


@LAYERS.register("rnn")
class LinearRNN(ChunkedLayer):
    """Linear RNN with a dense recurrence.

    Attributes:
        A: recurrence [N, N].
        B: input weights [D, N].
        C: output weights [N, D].
        D: skip weights [D].
    """

    def __init__(
        self,
        d_model: int,
        d_hidden: int,
        *,
        A_init: str = "calibrated_glorot",
        A_length: int = LENGTH,
        r_min: float = 0.0,
        r_max: float = 1.0,
        max_phase: float = 2 * math.pi,
        scan_method: str = "auto",
        chunk_length: int = 4096,
        compute_dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        """Draw the parameters.

        Args:
            d_model: width D of inputs and outputs.
            d_hidden: width N of the state.
            A_init: rule of the initial recurrence.
            A_length: steps over which the rule length_glorot keeps the energy of a state.
            r_min: smallest initial modulus, for the ring rule.
            r_max: largest initial modulus, for the ring rule.
            max_phase: largest initial phase in radians, for the ring rule.
            scan_method: algorithm of the scan; auto picks the fastest one measured.
            chunk_length: longer sequences run in chunks of so many steps, and gradients run each
                chunk again instead of keeping all states; 0 keeps them.
            compute_dtype: type of matrix products, float32 or bfloat16; states, parameters and sums
                stay float32, as does the recurrence.
            rngs: source of the initial parameters.
        """
        super().__init__(d_model, d_hidden, chunk_length, compute_dtype, scan_method, DENSE_METHODS)
        draw, ring = MATRIX_INITIALIZERS[A_init], Ring(r_min, r_max, max_phase)
        self.A = RecurrentParam(draw(rngs.params(), d_hidden, ring=ring, length=A_length))
        width = (d_model, d_hidden)
        normal = partial(jax.random.normal, dtype=jnp.float32)
        self.B = RecurrentParam(normal(rngs.params(), width) / math.sqrt(d_model))
        self.C = nnx.Param(normal(rngs.params(), width[::-1]) / math.sqrt(d_hidden))
        self.D = nnx.Param(normal(rngs.params(), (d_model,)))

    @classmethod
    def remembering(cls, steps: int) -> dict[str, Any]:
        """A ring."""
        return {"A_init": "ring", **ring_for(steps)}

    def eigenvalues(self) -> dict[str, Complex[Array, " N"]]:
        """The eigenvalues [N] of A, by real then imaginary part."""
        return {"": matrix_eigenvalues(self.A[...])}

    @zeros
    def initial_state(self, batch_size: int) -> Float[Array, "B N"]:
        """Zeros."""
        dtype = jnp.result_type(jnp.float32, self.A[...], self.B[...])
        return jnp.zeros((batch_size, self.d_hidden), dtype)

    def states(
        self,
        x: Float[Array, "B T D"],
        state: Float[Array, "B N"] | None,
        lengths: Integer[Array, " B"] | None,
        resets: Bool[Array, "B T"] | None,
        reverse: bool,
    ) -> Float[Array, "B T N"]:
        """See `ChunkedLayer.states`."""
        return self._scanned(x, state, lengths, resets, reverse)[0]

    def whole(
        self,
        x: Float[Array, "B T D"],
        state: Float[Array, "B N"] | None,
        lengths: Integer[Array, " B"] | None,
        resets: Bool[Array, "B T"] | None,
        reverse: bool,
    ) -> tuple[Float[Array, "B T D"], Float[Array, "B N"]]:
        """See `ChunkedLayer.whole`."""
        h, state = self._scanned(x, state, lengths, resets, reverse)
        y = product(h, self.C[...], self.compute_dtype) + skip(self.D[...], x)
        return y.astype(x.dtype), state

    def _scanned(
        self, x: Array, state: Array | None, lengths: Any, resets: Any, reverse: bool
    ) -> tuple[Float[Array, "B T N"], Float[Array, "B N"]]:
        return dense_scan(
            self.A[...],
            product(x.astype(self.B[...].dtype), self.B[...], self.compute_dtype),
            state,
            lengths=lengths,
            resets=resets,
            reverse=reverse,
            reset_to=self.reset_state(x.shape[0]),
            method=self.scan_method,
            compute_dtype=self.compute_dtype,
        )
