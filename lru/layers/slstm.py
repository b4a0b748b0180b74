"""sLSTM: c_t = σ(f_t) c_{t-1} + e^{i_t} tanh(z_t), h_t = σ(o_t) c_t / n_t.

The normaliser n_t is the same with 1 in place of the tanh. i and f are
W silu(conv(x)) + R h_{t-1} + b, z and o the same with x as it is; W and R are block-diagonal, a
block a head, and outputs are LayerNorm(h) (1 + w) for each head. The state has c and n times
e^{-m}, with m_t = max(log σ(f_t) + m_{t-1}, i_t). Beck et al. 2024 (arXiv 2405.04517), section 2.2
and figure 9.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Integer

from lru.layers.base import (
    LAYERS,
    RecurrentLayer,
    RecurrentParam,
    known_compute_dtype,
    without_padding,
    zeros,
)
from lru.layers.cell import remember
from lru.layers.convolution import DepthwiseConvolution
from lru.layers.heads import centred, head_count, multiply_blocks
from lru.scan import Gate, GatedCell, States, gated_scan, gated_steps, unforced
from lru.scan.products import product

GATES = ("input_gate", "forget_gate", "candidate", "output_gate")
# Initial biases of the forget gates over the channels of a head: 5 - 12 s^0.3, s from 0 to 1.
FIRST_BIAS, SPAN, EXPONENT = 5.0, 12.0, 0.3


class SLSTMState(NamedTuple):
    """State of an sLSTM, c and n times e^{-m}, and the last inputs of the convolution."""

    h: Float[Array, "B N"]
    c: Float[Array, "B N"]
    n: Float[Array, "B N"]
    m: Float[Array, "B N"]
    window: Float[Array, "B W D"] | None


def _forward(
    pre_activations: Float[Array, "B S"], before: States, gate: Gate = unforced
) -> tuple[States, States]:
    i, f, z, o = jnp.split(pre_activations, 4, axis=-1)
    _, c, n, m = before
    kept = jax.nn.log_sigmoid(f) + m
    # Where nothing has been read, m has nothing to keep small.
    nothing = n == 0
    m = jnp.where(nothing, i, jnp.maximum(i, kept))
    take = gate(GATES[0], jnp.exp(i - m))
    keep = gate(GATES[1], jnp.exp(jnp.where(nothing, 0, kept - m)))
    z, o = gate(GATES[2], jnp.tanh(z)), gate(GATES[3], jax.nn.sigmoid(o))
    c, n = keep * c + take * z, keep * n + take
    return (take, keep, z, o, jax.nn.sigmoid(f)), (o * c / n, c, n, m)


def _backward(
    activations: States, before: States, after: States, gradient: States
) -> tuple[Float[Array, "B S"], States]:
    take, keep, z, o, forget = activations
    dh, dc, dn, dm = gradient
    ratio = after[1] / after[2]
    dratio = dh * o / after[2]
    dc, dn = dc + dratio, dn - dratio * ratio
    dtake, dkeep = (dc * z + dn) * take, (dc * before[1] + dn * before[2]) * keep
    dm = dm - dtake - dkeep
    # The larger of both, to which m is equal, is the one whose exponential is 1.
    larger = take == 1
    dtake, dkeep = dtake + jnp.where(larger, dm, 0), dkeep + jnp.where(larger, 0, dm)
    gradients = [
        dtake,
        dkeep * (1 - forget),
        dc * take * (1 - z**2),
        dh * ratio * o * (1 - o),
    ]
    return jnp.concatenate(gradients, axis=-1), (jnp.zeros_like(dh), dc * keep, dn * keep, dkeep)


CELL = GatedCell(_forward, _backward, activations=5)


@LAYERS.register("slstm")
class SLSTM(RecurrentLayer):
    """LSTM with exponential input gates and a normaliser, its recurrent weights by heads.

    Attributes:
        W_i: input weights of the input gates, a block a head [H, D / H, P] with P = N / H,
        W_f: of the forget gates,
        W_z: of the candidates, and
        W_o: of the output gates.
        R: recurrent weights [H, P, 4, P], from a head's h to its i, f, z and o.
        bias: of i, f, z and o [4, N].
        convolution: of the inputs of i and f; None without one.
        norm: what is added to 1 for the scale of each channel [N].
        readout: linear map from N to D without bias; None where N is D.
    """

    def __init__(
        self,
        d_model: int,
        d_hidden: int,
        *,
        n_heads: int | None = None,
        window: int = 4,
        chrono: int | None = None,
        compute_dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        """Draw the parameters; recurrent weights are zero at first.

        Args:
            d_model: width D of inputs and outputs.
            d_hidden: width N of the state, of all heads together.
            n_heads: number H of heads, a divisor of d_model and d_hidden; by default 4, or 2 or 1
                where 4 does not divide them.
            window: width K of the convolution before the input and forget gates; 1 for none.
            chrono: draw biases of forget gates for memories of up to so many steps; None spaces
                them from 5 to -7 over the channels of a head.
            compute_dtype: type of matrix products, float32 or bfloat16; states, parameters and sums
                stay float32.
            rngs: source of the initial parameters.
        """
        super().__init__(d_model, d_hidden)
        self.n_heads = heads = head_count(n_heads, d_model=d_model, d_hidden=d_hidden)
        self.compute_dtype = known_compute_dtype(compute_dtype)
        if window < 1:
            raise ValueError(f"window must be at least 1, got {window}")
        width = d_hidden // heads
        shape, deviation = (heads, d_model // heads, width), math.sqrt(2 / (5 * d_model))
        self.W_i, self.W_f, self.W_z, self.W_o = (
            nnx.Param(deviation * jax.random.normal(rngs.params(), shape, jnp.float32))
            for _ in GATES
        )
        self.R = RecurrentParam(jnp.zeros((heads, width, 4, width), jnp.float32))
        place = jnp.arange(width, dtype=jnp.float32) / max(width - 1, 1)
        forget = jnp.tile(FIRST_BIAS - SPAN * place**EXPONENT, heads)
        self.bias = nnx.Param(jnp.zeros((4, d_hidden), jnp.float32).at[1].set(forget))
        remember(self.bias, d_hidden, chrono, {1: 1.0}, rngs)
        self.convolution = DepthwiseConvolution(d_model, window, rngs=rngs) if window > 1 else None
        self.norm = nnx.Param(jnp.zeros(d_hidden, jnp.float32))
        self.readout = (
            None
            if d_hidden == d_model
            else nnx.Linear(d_hidden, d_model, use_bias=False, rngs=rngs)
        )

    @zeros
    def initial_state(self, batch_size: int) -> SLSTMState:
        """Zeros."""
        dtype = jnp.result_type(self.R[...], jnp.float32)
        window = None if self.convolution is None else self.convolution.initial_window(batch_size)
        h, c, n, m = (jnp.zeros((batch_size, self.d_hidden), dtype) for _ in range(4))
        return SLSTMState(h, c, n, m, window)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        state: SLSTMState | None = None,
        *,
        lengths: Integer[Array, " B"] | None = None,
        resets: Bool[Array, "B T"] | None = None,
        reverse: bool = False,
    ) -> tuple[Float[Array, "B T D"], SLSTMState]:
        """See `RecurrentLayer.__call__`."""
        arguments, options, window = self._problem(x, state, lengths, resets, reverse)
        hidden, (h, c, n, m) = gated_scan(CELL, *arguments, **options)
        y = centred(hidden.reshape(*x.shape[:2], self.n_heads, self.d_hidden // self.n_heads))
        y = y.reshape(hidden.shape) * (1 + self.norm[...])
        if self.readout is not None:
            y = product(y, self.readout.kernel[...], self.compute_dtype)
        y = without_padding(y.astype(x.dtype), options["lengths"])
        return y, SLSTMState(h, c, n, m, window)

    def observe(
        self,
        x: Float[Array, "B T D"],
        state: SLSTMState | None = None,
        *,
        lengths: Integer[Array, " B"] | None = None,
        resets: Bool[Array, "B T"] | None = None,
        reverse: bool = False,
    ) -> dict[str, Float[Array, "B T N"]]:
        """See `RecurrentLayer.observe`: h as "output", c as "state", n, m and the gates."""
        arguments, options, _ = self._problem(x, state, lengths, resets, reverse)
        states, activations = gated_steps(CELL, *arguments, **options)
        names = ("output", "state", "normaliser", "stabiliser", *GATES)
        # The last activation, without a name, is for gradients.
        return dict(zip(names, (*states, *activations), strict=False))

    def _problem(
        self,
        x: Array,
        state: SLSTMState | None,
        lengths: Array | None,
        resets: Array | None,
        reverse: bool,
    ) -> tuple[tuple[Array, Array, States], dict, Array | None]:
        """The arguments of the scan, and the window to hand on."""
        x, start, options = self.prepared(x, state, lengths, resets, reverse)
        fresh = options.pop("reset_to")
        convolved, window = x, None
        if self.convolution is not None:
            afresh = None if fresh is None else fresh.window
            convolved, window = self.convolution(x, start.window, fresh=afresh, **options)
        convolved = jax.nn.silu(convolved)
        weights = ((convolved, self.W_i), (convolved, self.W_f), (x, self.W_z), (x, self.W_o))
        products = [multiply_blocks(x, W[...], self.compute_dtype) for x, W in weights]
        pre_activations = jnp.concatenate(products, axis=-1) + self.bias[...].reshape(-1)
        options |= {
            "reset_to": None if fresh is None else tuple(fresh[:4]),
            "compute_dtype": self.compute_dtype,
        }
        dtype = start.h.dtype
        arguments = (pre_activations.astype(dtype), dense(self.R[...]).astype(dtype))
        return (*arguments, tuple(start[:4])), options, window


def dense(R: Float[Array, "H P G P"]) -> Float[Array, "N M"]:
    """The block-diagonal matrix from h to all gates, with zeros between the heads."""
    heads, width, gates, _ = R.shape
    blocks = jnp.einsum("hpgq,hk->hpgkq", R, jnp.eye(heads, dtype=R.dtype))
    return blocks.reshape(heads * width, gates * heads * width)
