"""DeltaNet: S_t = S_{t-1} + β_t k_t (v_t - S_{t-1}^T k_t)^T, o_t = S_t^T q_t / sqrt(P).

q, k, v = silu(conv(W x)), of which q and k have length 1, and β = σ(W_β x) for each head; outputs
are W_out RMSNorm(o). Yang et al. 2024 (arXiv 2406.06484), sections 2 and 4.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from lru.layers.base import LAYERS, State
from lru.layers.cell import uniform
from lru.layers.convolution import DepthwiseConvolution
from lru.layers.heads import MatrixLayer, scaled
from lru.scan import delta_scan

# Below the square of a length that is not zero, so that a step that reads nothing stays finite.
SMALLEST_SQUARE = 1e-6


class DeltaState(NamedTuple):
    """State of a DeltaNet: the map from keys to values, and the last inputs of the convolution."""

    h: Float[Array, "B H P P"]
    window: Float[Array, "B W M"] | None


@LAYERS.register("deltanet")
class DeltaNet(MatrixLayer):
    """Linear attention that overwrites what its state holds for a key.

    Attributes:
        W_qkv: weights of queries, keys and values [D, 3N].
        W_beta: weights of the shares that are written [D, H].
        convolution: of queries, keys and values, without bias; None without one.
        norm: scale of each channel of a head [P].
        W_out: output weights [N, D].
    """

    state_type = DeltaState

    def __init__(
        self,
        d_model: int,
        d_hidden: int,
        *,
        n_heads: int | None = None,
        window: int = 4,
        negative_eigenvalues: bool = False,
        chunk_length: int = 32,
        compute_dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        """Draw the parameters, linear maps as PyTorch does.

        Args:
            d_model: see `MatrixLayer`, as for all but the next.
            d_hidden: width N of queries, keys and values.
            n_heads: number H of heads.
            window: width K of the convolution.
            negative_eigenvalues: let beta go up to 2, so that a step may turn what the state holds
                for a key into its negative (arXiv 2411.12537).
            chunk_length: steps that are computed at once.
            compute_dtype: type of matrix products with weights.
            rngs: source of the initial parameters.
        """
        super().__init__(
            d_model,
            d_hidden,
            n_heads=n_heads,
            window=window,
            chunk_length=chunk_length,
            compute_dtype=compute_dtype,
        )
        self.negative_eigenvalues = negative_eigenvalues
        self.W_qkv = nnx.Param(uniform(rngs.params(), (d_model, 3 * d_hidden), d_model))
        self.W_beta = nnx.Param(uniform(rngs.params(), (d_model, self.n_heads), d_model))
        self.W_out = nnx.Param(uniform(rngs.params(), (d_hidden, d_model), d_hidden))
        self.norm = nnx.Param(jnp.ones(d_hidden // self.n_heads, jnp.float32))
        self.convolution = (
            DepthwiseConvolution(3 * d_hidden, window, bias=False, rngs=rngs)
            if window > 1
            else None
        )

    def memory(self, rows: int) -> tuple[Float[Array, "B H P P"]]:
        """See `MatrixLayer.memory`."""
        width = self.d_hidden // self.n_heads
        dtype = jnp.result_type(self.W_qkv[...], self.W_beta[...], jnp.float32)
        return (jnp.zeros((rows, self.n_heads, width, width), dtype),)

    def inputs(
        self, x: Float[Array, "B T D"], start: State, **options: Any
    ) -> tuple[dict[str, Array], tuple[Array, ...], Array | None]:
        """See `MatrixLayer.inputs`."""
        qkv, window = self.convolved(self.multiply(x, self.W_qkv[...]), start, **options)
        q, k, v = map(self.heads, jnp.split(qkv, 3, axis=-1))
        beta = jax.nn.sigmoid(self.multiply(x, self.W_beta[...]))
        beta = 2 * beta if self.negative_eigenvalues else beta
        return {"q": _of_length_1(q), "k": _of_length_1(k), "v": v, "beta": beta}, (), window

    def scan(
        self, inputs: dict[str, Array], start: tuple[Array, ...], **options: Any
    ) -> tuple[Float[Array, "B T H ..."], tuple[Array, ...]]:
        """See `MatrixLayer.scan`."""
        fresh = options.pop("reset_to")
        S0, reset_to = start[0], None if fresh is None else fresh[0]
        o, S = delta_scan(**inputs, S0=S0, reset_to=reset_to, **options)
        return o, (S,)

    def gates(self, inputs: dict[str, Array]) -> dict[str, Float[Array, "B T H"]]:
        """The share β of what is written for a key, as "write_gate"."""
        return {"write_gate": inputs["beta"]}

    def outputs(
        self, h: Float[Array, "B T H P"], beside: tuple[Array, ...]
    ) -> Float[Array, "B T D"]:
        """See `MatrixLayer.outputs`."""
        o = (scaled(h) * self.norm[...]).reshape(*h.shape[:2], self.d_hidden)
        for gate in beside:
            o = o * jax.nn.silu(gate)
        return self.multiply(o, self.W_out[...])


def _of_length_1(x: Float[Array, "... P"]) -> Float[Array, "... P"]:
    return x * jax.lax.rsqrt(jnp.sum(x**2, axis=-1, keepdims=True) + SMALLEST_SQUARE)
