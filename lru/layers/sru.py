"""Simple recurrent unit: c_t = f_t c_{t-1} + (1 - f_t) z_t, h_t = r_t act(c_t) + (1 - r_t) s_t.

z = W_z x, f = sigmoid(W_f x + v_f c_{t-1} + b_f), r = sigmoid(W_r x + v_r c_{t-1} + b_r), and the
skip s = α x, or W_s x where N is not D. Lei et al. 2018 (arXiv 1709.02755), section 2: version 2;
version 1, of its first draft, has v = 0, so that c is a linear scan. Initial values of the code.
"""

import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from lru.layers.base import LAYERS, RecurrentParam
from lru.layers.cell import remember
from lru.layers.elementwise import ElementwiseLayer, Run, run_units
from lru.scan import Elementwise
from lru.scan.methods import states_before
from lru.scan.pooling import apart

ACTIVATIONS = {"identity": lambda c: c, "tanh": jnp.tanh}


def _step(v: Float[Array, " N"], x: Array, c: Array) -> Array:
    z, f = jnp.split(x, 2, axis=-1)
    f = jax.nn.sigmoid(f + v * c)
    return f * c + (1 - f) * z


STEP = Elementwise(_step, native="sru")


@LAYERS.register("sru")
class SRU(ElementwiseLayer):
    """Simple Recurrent Unit, a highway around gates that are elementwise in the state.

    Attributes:
        weight: input weights of candidate, forget and reset gate, and of the skip where N is not D
            [D, G N].
        bias: of forget and reset gate [2 N].
        n_parts: number G of products of the input.
        v: weights of these gates from the state [2, N]; None in version 1.
        skip_scale: factor α of the input where N is D.
    """

    def __init__(
        self,
        d_model: int,
        d_hidden: int,
        *,
        version: int = 2,
        activation: str = "identity",
        skip: bool = True,
        highway_bias: float = 0.0,
        chrono: int | None = None,
        scan_method: str = "auto",
        compute_dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        """Draw the parameters.

        Args:
            d_model: width D of inputs and outputs.
            d_hidden: width N of the state.
            version: 2 lets gates read the state before, unit by unit; 1 does not, which is faster.
            activation: of the state that is given out, identity or tanh.
            skip: let the input past the state where the reset gate is closed.
            highway_bias: initial bias of the reset gate; below 0 it starts closed.
            chrono: draw biases of forget gates for memories of up to so many steps; None sets them
                to zero.
            scan_method: algorithm of the scan of version 1; auto picks by platform.
            compute_dtype: type of matrix products, float32 or bfloat16; states, parameters and sums
                stay float32.
            rngs: source of the initial parameters.

        Raises:
            ValueError: if a value is out of range.
        """
        super().__init__(
            d_model, d_hidden, scan_method=scan_method, compute_dtype=compute_dtype, rngs=rngs
        )
        if version not in (1, 2):
            raise ValueError(f"version must be 1 or 2, got {version}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be {' or '.join(ACTIVATIONS)}, got {activation!r}")
        self.activation, self.skip = activation, skip
        # That the variance of the output is the one of the input.
        self.skip_scale = math.sqrt(1 + 2 * math.exp(highway_bias)) if skip else 1.0
        gate_scale = 1.0 if version == 1 else math.sqrt(0.5)
        scales = [1.0, gate_scale, gate_scale]
        scales += [self.skip_scale] if skip and d_hidden != d_model else []

        def draw(shape: tuple[int, ...], bound: float) -> Array:
            return jax.random.uniform(
                rngs.params(), shape, jnp.float32, minval=-bound, maxval=bound
            )

        self.n_parts = len(scales)
        drawn = draw((d_model, self.n_parts, d_hidden), math.sqrt(3 / d_model))
        scaled = drawn * jnp.asarray(scales, jnp.float32)[:, None]
        self.weight = nnx.Param(scaled.reshape(d_model, -1))
        biases = jnp.asarray([0, highway_bias], jnp.float32)
        self.bias: nnx.Param = nnx.Param(jnp.repeat(biases, d_hidden))
        remember(self.bias, d_hidden, chrono, {0: 1.0}, rngs)
        self.v = RecurrentParam(draw((2, d_hidden), math.sqrt(1.5))) if version == 2 else None

    def biases(self) -> Float[Array, " M"]:
        """Candidate and skip have none."""
        after = self.weight.shape[1] - 3 * self.d_hidden
        return jnp.pad(self.bias[...], (self.d_hidden, after))

    def run(
        self, x: Float[Array, "B T D"], start: Float[Array, "B N"], options: dict[str, Any]
    ) -> Run:
        """See `ElementwiseLayer.run`."""
        z, f, r, *skips = apart(self.inputs(x).astype(start.dtype), self.n_parts)
        if self.v is None:
            f = jax.nn.sigmoid(f)
            b = (1 - f) * z
            c, last = self.linear_states(f, b, start, options)
        else:
            v_f, v_r = self.v[...].astype(start.dtype)
            zf = jnp.concatenate([z, f], axis=-1)
            c, last = run_units(STEP, v_f, zf, start, options)
            keep = None if options["resets"] is None else ~options["resets"]
            before = states_before(c, start, options["reverse"], keep, options["reset_to"])
            f, r = jax.nn.sigmoid(f + v_f * before), r + v_r * before
        r = jax.nn.sigmoid(r)
        h = r * ACTIVATIONS[self.activation](c)
        if self.skip:
            h += (1 - r) * (skips[0] if skips else self.skip_scale * x)
        return Run(h, last, {"state": c, "forget_gate": f, "candidate": z, "reset_gate": r})


class SRUCell(SRU):
    """The same without a read-out."""

    reads_out: ClassVar[bool] = False
