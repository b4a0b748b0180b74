"""S4D: a diagonal state space for each channel, read out by itself.

Of channel c, with N/2 complex modes and a step size Δ: h_t = exp(λΔ) h_{t-1} + (exp(λΔ) - 1)/λ x_t,
y_t = 2 Re Σ C h_t + D x_t, λ = -exp(log_A_real) + i A_imag, at first -1/2 + iπn. Gu et al. 2022
(arXiv 2206.11893), sections 3 and 4 (S4D-Lin). The published layer goes on with a GELU and a gated
linear map, which residual blocks have behind every layer.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Complex, Float, Integer

from lru.layers.base import LAYERS, RecurrentParam, zeros
from lru.layers.chunks import skip
from lru.layers.state_spaces import log_step_sizes, step_sizes_for
from lru.layers.timed import TimedLayer
from lru.scan import paired_scan


@LAYERS.register("s4d")
class S4D(TimedLayer):
    """S4D: diagonal state spaces of single channels.

    Attributes:
        log_A_real, A_imag: continuous eigenvalues [N/2, D].
        log_step: logarithms of step sizes [D].
        C_re, C_im: output weights [N/2, D].
        D: skip weights [D].
    """

    splits_time = True

    def __init__(
        self,
        d_model: int,
        d_hidden: int,
        *,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        scan_method: str = "auto",
        chunk_length: int = 64,
        compute_dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        """Draw the parameters.

        Args:
            d_model: width D of inputs and outputs.
            d_hidden: number N of real numbers in the state of a channel, even.
            dt_min: smallest initial step size.
            dt_max: largest initial step size.
            scan_method: algorithm of the scan; auto picks the fastest one measured.
            chunk_length: longer sequences run in chunks of so many steps, and gradients run each
                chunk again instead of keeping all states; 0 keeps them, and so do scan methods that
                split time over devices.
            compute_dtype: type of matrix products, float32 or bfloat16; states, parameters and sums
                stay float32.
            rngs: source of the initial parameters.
        """
        super().__init__(d_model, d_hidden, chunk_length, compute_dtype, scan_method)
        if d_hidden % 2:
            raise ValueError(f"d_hidden must be even, as states are complex, got {d_hidden}")
        modes = (d_hidden // 2, d_model)
        frequencies = math.pi * jnp.arange(modes[0], dtype=jnp.float32)
        self.log_step = RecurrentParam(log_step_sizes(rngs.params(), (d_model,), dt_min, dt_max))
        self.log_A_real = RecurrentParam(jnp.full(modes, math.log(0.5), jnp.float32))
        self.A_imag = RecurrentParam(jnp.tile(frequencies[:, None], d_model))
        drawn = jax.random.normal(rngs.params(), (2, *modes), jnp.float32) / math.sqrt(2)
        self.C_re, self.C_im = map(nnx.Param, drawn)
        self.D = nnx.Param(jax.random.normal(rngs.params(), (d_model,), jnp.float32))

    @classmethod
    def remembering(cls, steps: int) -> dict[str, Any]:
        """Step sizes for eigenvalues of real part -1/2."""
        return step_sizes_for(steps, rate=0.5)

    def transition(
        self, dt: Float[Array, "B T 1"] | None
    ) -> tuple[Complex[Array, "*steps H D"], Complex[Array, "*steps H D"]]:
        """Factors of the states and of the inputs; varying where durations of steps are given."""
        eigenvalues = -jnp.exp(self.log_A_real[...]) + 1j * self.A_imag[...]
        step = jnp.exp(self.log_step[...])
        step = step if dt is None else (step * dt)[..., None, :]
        return jnp.exp(eigenvalues * step), jnp.expm1(eigenvalues * step) / eigenvalues

    def eigenvalues(self) -> dict[str, Complex[Array, " M"]]:
        """The discrete eigenvalues of all channels, [D N/2]."""
        return {"": self.transition(None)[0].ravel()}

    @zeros
    def initial_state(self, batch_size: int) -> Complex[Array, "B H D"]:
        """Zeros [B, N/2, D]."""
        held = (self.log_step, self.log_A_real, self.A_imag)
        dtype = jnp.result_type(jnp.complex64, *(p[...] for p in held))
        return jnp.zeros((batch_size, self.d_hidden // 2, self.d_model), dtype)

    def states(
        self,
        x: Float[Array, "B T D"],
        state: Complex[Array, "B H D"] | None,
        lengths: Integer[Array, " B"] | None,
        resets: Bool[Array, "B T"] | None,
        reverse: bool,
        dt: Float[Array, "B T"] | None = None,
    ) -> Complex[Array, "B T M"]:
        """See `ChunkedLayer.states`: of all modes in one row."""
        h, _ = self._scanned(x, state, lengths, resets, reverse, dt)
        return jax.lax.complex(h[:, :, 0], h[:, :, 1])

    def whole(
        self,
        x: Float[Array, "B T D"],
        state: Complex[Array, "B H D"] | None,
        lengths: Integer[Array, " B"] | None,
        resets: Bool[Array, "B T"] | None,
        reverse: bool,
        dt: Float[Array, "B T"] | None = None,
    ) -> tuple[Float[Array, "B T D"], Complex[Array, "B H D"]]:
        """See `ChunkedLayer.whole`."""
        h, last = self._scanned(x, state, lengths, resets, reverse, dt)
        C = 2 * jnp.stack([self.C_re[...], -self.C_im[...]])
        h = h.reshape(*x.shape[:2], *C.shape)
        if self.compute_dtype == "float32":
            y = jnp.sum(C * h, axis=(2, 3))
        else:
            h, C = (z.astype(self.compute_dtype) for z in (h, C))
            y = jnp.einsum("btpmd,pmd->btd", h, C, preferred_element_type=jnp.float32)
        y = y + skip(self.D[...], x)
        return y.astype(x.dtype), last.reshape(x.shape[0], *C.shape[1:])

    def _scanned(
        self,
        x: Array,
        state: Array | None,
        lengths: Array | None,
        resets: Array | None,
        reverse: bool,
        dt: Array | None,
    ) -> tuple[Float[Array, "B T 2 M"], Complex[Array, "B M"]]:
        """A mode of a channel is a lane, channels side by side, so that all sums are of rows."""
        a, scale = self.transition(None if dt is None else dt[..., None])
        pairs = jnp.stack([scale.real, scale.imag], axis=-3)
        b = pairs * x.astype(pairs.dtype)[:, :, None, None]
        fresh = self.reset_state(x.shape[0])
        lanes = self.d_model * self.d_hidden // 2
        return paired_scan(
            a.reshape(*a.shape[:-2], lanes),
            b.reshape(*b.shape[:3], lanes),
            None if state is None else state.reshape(x.shape[0], lanes),
            lengths=lengths,
            resets=resets,
            reverse=reverse,
            reset_to=None if fresh is None else fresh.reshape(x.shape[0], lanes),
            method=self.scan_method,
            donate=True,
            compute_dtype=self.compute_dtype,
        )
