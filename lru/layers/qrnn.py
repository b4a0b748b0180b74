"""Quasi-recurrent network: gates from a causal convolution of the inputs, mixed into a state.

z = tanh(W_z * x + b_z), and f, o, i = sigmoid(W * x + b) likewise; then one of
f-pooling c_t = f_t c_{t-1} + (1 - f_t) z_t, h_t = c_t;
fo-pooling, the same with h_t = o_t c_t;
ifo-pooling c_t = f_t c_{t-1} + i_t z_t, h_t = o_t c_t.
Bradbury et al. 2016 (arXiv 1611.01576), section 2; zoneout: section 2.1. As in the paper f keeps
the old state; `torchqrnn` has 1 - f in its place, which `lru.interop.torch` converts.
"""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from lru.layers.base import LAYERS, known_scan_method
from lru.layers.cell import CellLayer, uniform, without_padding
from lru.layers.convolution import causal_convolution, segments
from lru.registry import Registry
from lru.scan import LINEAR_METHODS, linear_scan
from lru.scan.methods import kept

GATES = ("f", "fo", "ifo")


class QRNNState(NamedTuple):
    """What a QRNN hands on.

    Attributes:
        c: state before the output gate [B, N].
        window: the last K - 1 inputs [B, K - 1, D]; None where K is 1.
    """

    c: Float[Array, "B N"]
    window: Float[Array, "B W D"] | None


def _expected(zoneout: float, f: Array, update: Array) -> tuple[Array, Array]:
    return zoneout + (1 - zoneout) * f, (1 - zoneout) * update


# How gates that training zones out at random are used in evaluation: by their expected values, as
# `torchqrnn` does, or as they are, as in the first release for TensorFlow.
ZONEOUT_EVALUATIONS: Registry = Registry("zoneout_eval")
ZONEOUT_EVALUATIONS.register("expectation")(_expected)
ZONEOUT_EVALUATIONS.register("identity")(lambda zoneout, f, update: (f, update))


@LAYERS.register("qrnn")
class QRNN(CellLayer):
    """Quasi-recurrent layer.

    Attributes:
        weight_z, weight_f, weight_o, weight_i: kernels [K, D, N] of those gates that there are;
            row j belongs to the input j steps back.
        bias: of each gate in this order [G, N]; None without biases.
        readout: see `CellLayer`.
    """

    def __init__(
        self,
        d_model: int,
        d_hidden: int,
        *,
        gates: str = "fo",
        window: int = 2,
        zoneout: float = 0.0,
        zoneout_eval: str = "expectation",
        detach_window: bool = False,
        biases: int = 1,
        scan_method: str = "auto",
        rngs: nnx.Rngs,
    ):
        """Draw the parameters.

        Args:
            d_model: width D of inputs and outputs.
            d_hidden: width N of the state.
            gates: those beside the candidate: f, fo or ifo, for forget, output and input gate.
            window: number K of inputs that each step sees, its own and those before.
            zoneout: probability with which training lets a unit keep its state at a step.
            zoneout_eval: how evaluation stands in for zoneout, expectation or identity.
            detach_window: let no gradient flow into the inputs of the chunk before.
            biases: number of bias vectors of each gate.
            scan_method: algorithm of the scan; auto picks by platform.
            rngs: source of the initial parameters.
        """
        super().__init__(d_model, d_hidden, rngs=rngs)
        if gates not in GATES:
            raise ValueError(f"gates must be {', '.join(GATES[:-1])} or {GATES[-1]}, got {gates!r}")
        if window < 1:
            raise ValueError(f"window must be at least 1, got {window}")
        if not 0 <= zoneout < 1:
            raise ValueError(f"zoneout must be in [0, 1), got {zoneout}")
        if biases not in (0, 1):
            raise ValueError(f"biases must be 0 or 1 in a qrnn, got {biases}")
        self.window = window
        self.zoneout = zoneout
        self.zoneout_eval = ZONEOUT_EVALUATIONS.resolve(zoneout_eval)
        self.noisy = zoneout > 0
        self.detach_window = detach_window
        self.scan_method = known_scan_method(scan_method, LINEAR_METHODS)
        self.gates = tuple(gate for gate in "zfoi" if gate in f"z{gates}")
        shape, fan_in = (window, d_model, d_hidden), window * d_model
        for gate in self.gates:
            setattr(self, f"weight_{gate}", nnx.Param(uniform(rngs.params(), shape, fan_in)))
        self.bias = (
            nnx.Param(uniform(rngs.params(), (len(self.gates), d_hidden), fan_in))
            if biases
            else None
        )

    def initial_state(self, batch_size: int) -> QRNNState:
        """Zeros."""
        dtype = jnp.result_type(self.weight_z[...], jnp.float32)
        c = jnp.zeros((batch_size, self.d_hidden), dtype)
        if self.window == 1:
            return QRNNState(c, None)
        return QRNNState(c, jnp.zeros((batch_size, self.window - 1, self.d_model), dtype))

    def __call__(
        self,
        x: Float[Array, "B T D"],
        state: QRNNState | None = None,
        *,
        lengths: Int[Array, " B"] | None = None,
        resets: Bool[Array, "B T"] | None = None,
        key: Key[Array, ""] | None = None,
    ) -> tuple[Float[Array, "B T M"], QRNNState]:
        """See `RecurrentLayer.__call__`. `key` draws the zoneout of training; None evaluates."""
        c, gate, state = self.pooled(x, state, lengths=lengths, resets=resets, key=key)
        return self.read_out(c if gate is None else gate * c, x.dtype), state

    def pooled(
        self,
        x: Float[Array, "B T D"],
        state: QRNNState | None,
        *,
        lengths: Int[Array, " B"] | None,
        resets: Bool[Array, "B T"] | None,
        key: Key[Array, ""] | None,
        shifts: Sequence[Float[Array, "B N"]] | None = None,
    ) -> tuple[Float[Array, "B T N"], Float[Array, "B T N"] | None, QRNNState]:
        """States before the output gate, that gate if there is one, and what to hand on.

        Args:
            x: as in `__call__`, as are the other arguments.
            state: where to start.
            lengths: number of valid steps of each row.
            resets: True where a row starts afresh.
            key: source of the zoneout.
            shifts: for each gate what is added to it at all steps.
        """
        self.check_inputs(x, state)
        state = self.start(x, state)
        seen = without_padding(x, lengths).astype(state.c.dtype)
        if state.window is not None:
            window = state.window
            window = jax.lax.stop_gradient(window) if self.detach_window else window
            seen = jnp.concatenate([window, seen], axis=1)
        activations = self._activations(seen, resets, shifts)
        f = activations["f"]
        update = activations["i"] if "i" in activations else 1 - f
        if self.zoneout and key is not None:
            zoned = jax.random.bernoulli(key, self.zoneout, f.shape)
            f, update = jnp.where(zoned, 1, f), jnp.where(zoned, 0, update)
        elif self.zoneout:
            f, update = ZONEOUT_EVALUATIONS[self.zoneout_eval](self.zoneout, f, update)
        c, last = linear_scan(
            f,
            update * activations["z"],
            state.c,
            lengths=lengths,
            resets=resets,
            method=self.scan_method,
        )
        window = self._next_window(seen, lengths, resets)
        return c, activations.get("o"), QRNNState(last, window)

    def _activations(
        self,
        seen: Float[Array, "B L D"],
        resets: Bool[Array, "B T"] | None,
        shifts: Sequence[Float[Array, "B N"]] | None,
    ) -> dict[str, Float[Array, "B T N"]]:
        """The gates by name, from the inputs and the window before them."""
        kernels = [getattr(self, f"weight_{gate}")[...] for gate in self.gates]
        out = causal_convolution(seen.astype(kernels[0].dtype), kernels, resets)
        if self.bias is not None:
            out = [y + bias for y, bias in zip(out, self.bias[...], strict=True)]
        if shifts is not None:
            out = [y + shift[:, None] for y, shift in zip(out, shifts, strict=True)]
        return {
            gate: (jnp.tanh if gate == "z" else jax.nn.sigmoid)(y.astype(seen.dtype))
            for gate, y in zip(self.gates, out, strict=True)
        }

    def _next_window(
        self,
        seen: Float[Array, "B L D"],
        lengths: Int[Array, " B"] | None,
        resets: Bool[Array, "B T"] | None,
    ) -> Float[Array, "B W D"] | None:
        """The last K - 1 valid inputs, zero where a reset came after them."""
        before = self.window - 1
        if before == 0:
            return None
        steps = seen.shape[1] - before
        documents = None if resets is None else segments(resets, before)
        if lengths is None:
            window = seen[:, steps:]
            if documents is None:
                return window
            return kept(documents[:, steps:] == documents[:, -1:], window)
        end = jnp.clip(lengths, 0, steps)[:, None]
        at = end + jnp.arange(before)
        window = jnp.take_along_axis(seen, at[..., None], axis=1)
        if documents is None:
            return window
        current = jnp.take_along_axis(documents, end + before - 1, axis=1)
        return kept(jnp.take_along_axis(documents, at, axis=1) == current, window)


class QRNNCell(QRNN):
    """The same without a read-out."""

    reads_out: ClassVar[bool] = False
