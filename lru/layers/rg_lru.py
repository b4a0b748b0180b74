"""Real-gated linear recurrent unit: h_t = a_t h_{t-1} + sqrt(1 - a_t²) i_t u_t, u = x or W x.

log a_t = -8 r_t softplus(Λ) and r, i = sigmoid(W u_t + b), W block-diagonal by heads. De et al.
2024 (arXiv 2402.19427), section 2.4. As in its code (RecurrentGemma) the factor of a document's
first input is 1, and the gradient of the root is at most 1000. With complex units, of which the
code has N / 2, a_t turns by r_t φ too, and gates are real.
"""

import math
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Inexact

from lru.layers.base import LAYERS, RecurrentParam, zeros
from lru.layers.elementwise import ElementwiseLayer, Run
from lru.layers.heads import head_count, multiply_blocks
from lru.layers.initializers import Ring, normal, ring_for
from lru.scan import linear_scan, paired_scan
from lru.scan.products import product

SHARPNESS = 8.0
LARGEST_SLOPE = 1000.0
# Of the initial phases, in radians.
LARGEST_PHASE = 0.1 * math.pi


class RGLRUState(NamedTuple):
    """State of an RG-LRU.

    Attributes:
        h: state [B, N], or complex [B, N / 2].
        started: 0 before a document's first input, after it 1 [B].
    """

    h: Inexact[Array, "B N"]
    started: Float[Array, " B"]


@jax.custom_jvp
def _root(x: Array) -> Array:
    """The square root, with a slope that is bounded near 0."""
    return jnp.sqrt(x)


@_root.defjvp
def _(arguments: tuple[Array], directions: tuple[Array]) -> tuple[Array, Array]:
    (x,), (direction,) = arguments, directions
    return jnp.sqrt(x), direction / jnp.sqrt(jnp.maximum(4 * x, LARGEST_SLOPE**-2))


@LAYERS.register("rg-lru")
class RGLRU(ElementwiseLayer):
    """Real-Gated Linear Recurrent Unit of Griffin and RecurrentGemma.

    Attributes:
        weight: weights of input gate and recurrence gate of M units, by head [H, N / H, 2, M / H];
            M is N, or N / 2 complex ones.
        bias: of both [2, M].
        decay: Λ [M].
        phase: φ [M]; None of real units.
        weight_in: linear map W from D to N; None where they are equal.
    """

    splits_time = True

    def __init__(
        self,
        d_model: int,
        d_hidden: int,
        *,
        n_heads: int | None = None,
        complex_units: bool = False,
        r_min: float = 0.9,
        r_max: float = 0.999,
        scan_method: str = "auto",
        compute_dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        """Draw the parameters.

        Args:
            d_model: width D of inputs and outputs.
            d_hidden: width N of the state.
            n_heads: number H of equal parts of the state whose gates are products of their own;
                by default one.
            complex_units: take both halves of N numbers as real and imaginary parts of N / 2 units,
                whose states turn.
            r_min: smallest initial modulus of a, where its gate is 1/8.
            r_max: largest initial modulus of a, where its gate is 1/8.
            scan_method: algorithm of the scan; auto picks by platform.
            compute_dtype: type of matrix products, float32 or bfloat16; states, parameters and sums
                stay float32.
            rngs: source of the initial parameters.

        Raises:
            ValueError: if a value is out of range.
        """
        super().__init__(
            d_model, d_hidden, scan_method=scan_method, compute_dtype=compute_dtype, rngs=rngs
        )
        if complex_units and d_hidden % 2:
            raise ValueError(f"d_hidden must be even with complex_units, got {d_hidden}")
        units = d_hidden // 2 if complex_units else d_hidden
        n_heads = head_count(1 if n_heads is None else n_heads, units=units)
        Ring(r_min, r_max)
        width = d_hidden // n_heads
        self.weight_in = (
            nnx.Param(normal(rngs.params(), (d_model, d_hidden), 1 / d_model))
            if d_hidden != d_model
            else None
        )
        shape = (n_heads, width, 2, units // n_heads)
        self.weight = nnx.Param(normal(rngs.params(), shape, 1 / width))
        self.bias: nnx.Param = nnx.Param(jnp.zeros((2, units), jnp.float32))
        # The open interval keeps 0 and 1 out, where the softplus has no inverse.
        eps = float(jnp.finfo(jnp.float32).eps)
        uniform = partial(jax.random.uniform, dtype=jnp.float32, minval=eps, maxval=1 - eps)
        squares = uniform(rngs.params(), (units,)) * (r_max**2 - r_min**2) + r_min**2
        self.decay = RecurrentParam(jnp.log(jnp.expm1(-0.5 * jnp.log(squares))))
        self.phase = (
            RecurrentParam(LARGEST_PHASE * uniform(rngs.params(), (units,)))
            if complex_units
            else None
        )

    @classmethod
    def remembering(cls, steps: int) -> dict[str, Any]:
        """A ring for gates at 1/2, where they are at first."""
        return ring_for(4 * steps)

    @zeros
    def initial_state(self, batch_size: int) -> RGLRUState:
        """Zeros."""
        dtype = jnp.result_type(jnp.float32, self.weight[...], self.decay[...])
        of_h = dtype if self.phase is None else jnp.result_type(dtype, jnp.complex64)
        h = jnp.zeros((batch_size, *self.decay.shape), of_h)
        return RGLRUState(h, jnp.zeros(batch_size, dtype))

    def run(self, x: Float[Array, "B T D"], start: RGLRUState, options: dict[str, Any]) -> Run:
        """See `ElementwiseLayer.run`."""
        fresh = options["reset_to"]
        options = {**options, "reset_to": None if fresh is None else fresh.h}
        u = x.astype(start.started.dtype)
        if self.weight_in is not None:
            u = product(u, self.weight_in[...], self.compute_dtype)
        i, r = self._gates(u)
        log_a = -SHARPNESS * r * jax.nn.softplus(self.decay[...])
        first, started = self._first(u, start.started, fresh, options)
        scale = i * jnp.where(first[..., None], 1, _root(-jnp.expm1(2 * log_a)))
        options |= {"method": self.scan_method, "donate": True}
        options["compute_dtype"] = self.compute_dtype
        if self.phase is None:
            h, last = linear_scan(jnp.exp(log_a), scale * u, start.h, **options)
            y = h
        else:
            a = jnp.exp(jax.lax.complex(log_a, r * self.phase[...]))
            pairs = u.reshape(*u.shape[:2], 2, u.shape[2] // 2)
            pairs, last = paired_scan(a, scale[:, :, None] * pairs, start.h, **options)
            h, y = jax.lax.complex(pairs[:, :, 0], pairs[:, :, 1]), pairs.reshape(u.shape)
        inside = {"state": h, "input_gate": i, "recurrence_gate": r}
        return Run(y, RGLRUState(last, started), inside)

    def _gates(self, u: Float[Array, "B T N"]) -> tuple[Array, Array]:
        """Input gate and recurrence gate."""
        weight, rows = self.weight[...], u.shape[:2]
        heads, width, _, out = weight.shape
        read = multiply_blocks(u, weight.reshape(heads, width, 2 * out), self.compute_dtype)
        read = jnp.moveaxis(read.reshape(*rows, heads, 2, out), 3, 0)
        i, r = jax.nn.sigmoid(read.reshape(2, *rows, heads * out) + self.bias[...][:, None, None])
        return i, r

    def _first(
        self,
        u: Array,
        started: Float[Array, " B"],
        fresh: RGLRUState | None,
        options: dict[str, Any],
    ) -> tuple[Bool[Array, "B T"], Float[Array, " B"]]:
        """Steps that read the first input of a document, and whether one has been read."""
        rows, steps = u.shape[:2]
        lengths, resets = options["lengths"], options["resets"]
        ends = jnp.full(rows, steps) if lengths is None else lengths
        entry = ends - 1 if options["reverse"] else jnp.zeros_like(ends)
        first = (jnp.arange(steps) == entry[:, None]) & (started <= 0)[:, None]
        if resets is not None:
            afresh = resets if fresh is None else resets & (fresh.started <= 0)[:, None]
            first = jnp.where(resets, afresh, first)
        return first, jnp.where(ends > 0, 1, started)


class RGLRUCell(RGLRU):
    """The same without a read-out."""

    reads_out: ClassVar[bool] = False
