"""mLSTM: C_t = σ(f_t) C_{t-1} + e^{i_t} k_t v_t^T / sqrt(P), h_t = C_t^T q_t / max(|n_t^T q_t|, 1).

With (u, z) = W_up x and c = silu(conv(u)): q and k are block-diagonal maps of c, v is one of u, the
gates i and f of each head read q, k and v, and outputs are
W_down ((LayerNorm(h) (1 + w) + skip c) silu(z)). Beck et al. 2024 (arXiv 2405.04517), section 2.3
and figure 10.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from lru.layers.base import LAYERS, State
from lru.layers.cell import remember
from lru.layers.convolution import DepthwiseConvolution
from lru.layers.heads import MatrixLayer, centred, head_count, multiply_blocks
from lru.scan import mlstm_scan

# Of the initial forget gates, before the sigmoid, from the first head to the last.
FORGET_BIASES = (3.0, 6.0)
INPUT_BIAS_DEVIATION = 0.1


class MLSTMState(NamedTuple):
    """State of an mLSTM, c and n times e^{-m}, and the last inputs of the convolution."""

    c: Float[Array, "B H P P"]
    n: Float[Array, "B H P"]
    m: Float[Array, "B H"]
    window: Float[Array, "B W N"] | None


@LAYERS.register("mlstm")
class MLSTM(MatrixLayer):
    """LSTM with a matrix memory and exponential input gates, without recurrent weights.

    Attributes:
        W_up: weights of the inputs u and of the output gates z [D, 2N].
        W_q: blocks of the queries' weights [N / Q, Q, Q]; Q is 4, or 2 or 1 if 4 does not divide N.
        W_k: those of the keys, and
        W_v: those of the values.
        W_gates: weights from q, k and v to i and f [3N, 2H].
        b_gates: their biases [2H].
        convolution: of the inputs u; None without one.
        norm: what is added to 1 for the scale of each channel [N].
        skip: weights of the convolved inputs beside the states [N].
        W_down: output weights [N, D].
    """

    state_type = MLSTMState

    def __init__(
        self,
        d_model: int,
        d_hidden: int,
        *,
        n_heads: int | None = None,
        window: int = 4,
        chrono: int | None = None,
        chunk_length: int = 32,
        compute_dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        """Draw the parameters; N is published as twice D.

        Args:
            d_model: see `MatrixLayer`, as for all but the next.
            d_hidden: width N of queries, keys and values.
            n_heads: number H of heads.
            window: width K of the convolution.
            chrono: draw biases of forget gates for memories of up to so many steps; None spaces
                them from 3 to 6 over the heads.
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
        heads, size = self.n_heads, head_count(None, d_hidden=d_hidden)

        def normal(shape: tuple[int, ...], deviation: float) -> Float[Array, "..."]:
            return deviation * jax.random.normal(rngs.params(), shape, jnp.float32)

        small, blocks = math.sqrt(2 / (5 * d_model)), (d_hidden // size, size, size)
        self.W_up = nnx.Param(normal((d_model, 2 * d_hidden), small))
        self.W_q, self.W_k, self.W_v = (nnx.Param(normal(blocks, small)) for _ in "qkv")
        self.W_gates = nnx.Param(jnp.zeros((3 * d_hidden, 2 * heads), jnp.float32))
        forget = jnp.linspace(*FORGET_BIASES, heads, dtype=jnp.float32)
        drawn = normal((heads,), INPUT_BIAS_DEVIATION)
        self.b_gates = nnx.Param(jnp.concatenate([drawn, forget]))
        remember(self.b_gates, heads, chrono, {1: 1.0}, rngs)
        self.convolution = DepthwiseConvolution(d_hidden, window, rngs=rngs) if window > 1 else None
        self.norm = nnx.Param(jnp.zeros(d_hidden, jnp.float32))
        self.skip = nnx.Param(jnp.ones(d_hidden, jnp.float32))
        self.W_down = nnx.Param(normal((d_hidden, d_model), 2 / math.sqrt(d_model)))

    def memory(self, rows: int) -> tuple[Float[Array, "B H ..."], ...]:
        """See `MatrixLayer.memory`."""
        width = self.d_hidden // self.n_heads
        shape = (rows, self.n_heads, width, width)
        dtype = jnp.result_type(self.W_up[...], jnp.float32)
        return tuple(jnp.zeros(shape[:axes], dtype) for axes in (4, 3, 2))

    def inputs(
        self, x: Float[Array, "B T D"], start: State, **options: Any
    ) -> tuple[dict[str, Array], tuple[Array, ...], Array | None]:
        """See `MatrixLayer.inputs`."""
        u, z = jnp.split(self.multiply(x, self.W_up[...]), 2, axis=-1)
        convolved, window = self.convolved(u, start, **options)
        q, k, v = (
            multiply_blocks(x, weight[...], self.compute_dtype)
            for x, weight in ((convolved, self.W_q), (convolved, self.W_k), (u, self.W_v))
        )
        gates = self.multiply(jnp.concatenate([q, k, v], axis=-1), self.W_gates[...])
        i, f = jnp.split(gates + self.b_gates[...], 2, axis=-1)
        q, k, v = map(self.heads, (q, k, v))
        return {"q": q, "k": k, "v": v, "i": i, "f": f}, (convolved, z), window

    def scan(
        self, inputs: dict[str, Array], start: tuple[Array, ...], **options: Any
    ) -> tuple[Float[Array, "B T H ..."], tuple[Array, ...]]:
        """See `MatrixLayer.scan`."""
        c, n, m = start
        return mlstm_scan(**inputs, state=(c, n, m), **options)

    def gates(self, inputs: dict[str, Array]) -> dict[str, Float[Array, "B T H"]]:
        """The gates e^i and σ(f)."""
        return {
            "input_gate": jnp.exp(inputs["i"]),
            "forget_gate": jax.nn.sigmoid(inputs["f"]),
        }

    def outputs(
        self, h: Float[Array, "B T H P"], beside: tuple[Array, ...]
    ) -> Float[Array, "B T D"]:
        """See `MatrixLayer.outputs`."""
        convolved, z = beside
        h = centred(h).reshape(convolved.shape) * (1 + self.norm[...])
        h = (h + self.skip[...] * convolved) * jax.nn.silu(z)
        return self.multiply(h, self.W_down[...])
