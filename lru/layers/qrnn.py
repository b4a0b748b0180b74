"""Quasi-recurrent network: gates from a causal convolution of the inputs, mixed into a state.

z = tanh(W_z * x + b_z), and f, o, i = sigmoid(W * x + b) likewise; then one of
f-pooling c_t = f_t c_{t-1} + (1 - f_t) z_t, h_t = c_t;
fo-pooling, the same with h_t = o_t c_t;
ifo-pooling c_t = f_t c_{t-1} + i_t z_t, h_t = o_t c_t.
Bradbury et al. 2016 (arXiv 1611.01576), section 2; zoneout: section 2.1. As in the paper f keeps
the old state; `torchqrnn` has 1 - f in its place, which `lru.interop.torch` converts.
"""

from collections.abc import Callable
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Integer, Key

from lru.layers.base import LAYERS, known_scan_method
from lru.layers.cell import CellLayer, uniform, without_padding
from lru.layers.convolution import causal_convolution, segments
from lru.registry import Registry
from lru.scan import LINEAR_METHODS, linear_scan, pooled_scan
from lru.scan.methods import kept, step_counts
from lru.scan.pooling import GATES, pooling_gates


class QRNNState(NamedTuple):
    """What a QRNN hands on.

    Attributes:
        c: state before the output gate [B, N].
        window: the last K - 1 inputs [B, K - 1, D]; None where K is 1.
    """

    c: Float[Array, "B N"]
    window: Float[Array, "B W D"] | None


class Observed(NamedTuple):
    """What a QRNN does at every step.

    Attributes:
        forget: how much of its state each unit keeps, from 0 to 1 [B, T, N].
        candidate: what it would take in instead [B, T, N].
        state: c after the step [B, T, N].
    """

    forget: Float[Array, "B T N"]
    candidate: Float[Array, "B T N"]
    state: Float[Array, "B T N"]


# How evaluation stands in for a zoneout that training draws: by the expected gates, as `torchqrnn`
# does, or by the gates as they are, as in the first release for TensorFlow. As the share of states
# that is kept, at a rate of zoneout.
ZONEOUT_EVALUATIONS: Registry[Callable[[float], float]] = Registry("zoneout_eval")
ZONEOUT_EVALUATIONS.register("expectation")(lambda rate: rate)
ZONEOUT_EVALUATIONS.register("identity")(lambda rate: 0.0)


@LAYERS.register("qrnn")
class QRNN(CellLayer):
    """Quasi-recurrent layer.

    Attributes:
        weight: kernels of the gates z, f, o and i, of those that there are, side by side
            [K, D, G N]; row j belongs to the input j steps back.
        bias: of the gates [G N]; None without biases.
        readout: see `CellLayer`.
    """

    main_weight: ClassVar[str] = "weight"

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
            *others, last = GATES
            raise ValueError(f"gates must be {', '.join(others)} or {last}, got {gates!r}")
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
        self.gates = gates
        self.n_gates = len(GATES[gates])
        columns, fan_in = self.n_gates * d_hidden, window * d_model
        self.weight = nnx.Param(uniform(rngs.params(), (window, d_model, columns), fan_in))
        self.bias = nnx.Param(uniform(rngs.params(), (columns,), fan_in)) if biases else None

    def initial_state(self, batch_size: int) -> QRNNState:
        """Zeros."""
        dtype = jnp.result_type(self.weight[...], jnp.float32)
        c = jnp.zeros((batch_size, self.d_hidden), dtype)
        if self.window == 1:
            return QRNNState(c, None)
        return QRNNState(c, jnp.zeros((batch_size, self.window - 1, self.d_model), dtype))

    def __call__(
        self,
        x: Float[Array, "B T D"],
        state: QRNNState | None = None,
        *,
        lengths: Integer[Array, " B"] | None = None,
        resets: Bool[Array, "B T"] | None = None,
        key: Key[Array, ""] | None = None,
    ) -> tuple[Float[Array, "B T M"], QRNNState]:
        """See `RecurrentLayer.__call__`. `key` draws the zoneout of training; None evaluates."""
        self.check_inputs(x, state)
        lengths = step_counts(lengths, x.shape[1])
        start = self.start(x, state)
        driven, window = self.driven(x, start, lengths, resets)
        h, c = pooled_scan(
            driven,
            self._biases(driven.dtype),
            start.c,
            pooling=self.gates,
            zoneout=self.kept_share(driven, key),
            lengths=lengths,
            resets=resets,
            method=self.scan_method,
        )
        return self.read_out(h, x.dtype), QRNNState(c, window)

    def observe(self, x: Float[Array, "B T D"], state: QRNNState | None = None) -> Observed:
        """What happens inside while x is read in evaluation mode, to be looked at."""
        self.check_inputs(x, state)
        start = self.start(x, state)
        driven, _ = self.driven(x, start, None, None)
        bias = self._biases(driven.dtype)
        gates = pooling_gates(
            driven if bias is None else driven + bias, self.gates, self.kept_share(driven, None)
        )
        c, _ = linear_scan(gates.forget, gates.take * gates.candidate, start.c)
        return Observed(gates.forget, gates.candidate, c)

    def _biases(self, dtype: DTypeLike) -> Float[Array, " M"] | None:
        return None if self.bias is None else self.bias[...].astype(dtype)

    def driven(
        self,
        x: Float[Array, "B T D"],
        state: QRNNState,
        lengths: Integer[Array, " B"] | None,
        resets: Bool[Array, "B T"] | None,
    ) -> tuple[Float[Array, "B T M"], Float[Array, "B W D"] | None]:
        """The products of the inputs, of the type of the state, and the window to hand on."""
        weight = self.weight[...]
        seen = without_padding(x, lengths).astype(state.c.dtype)
        if state.window is not None:
            window = state.window
            window = jax.lax.stop_gradient(window) if self.detach_window else window
            seen = jnp.concatenate([window, seen], axis=1)
        out = causal_convolution(seen.astype(weight.dtype), weight, resets)
        return out.astype(seen.dtype), self._next_window(seen, lengths, resets)

    def kept_share(
        self, driven: Float[Array, "B T M"], key: Key[Array, ""] | None
    ) -> Float[Array, "B T N"] | float:
        """The share of each state that zoneout keeps."""
        if key is None or self.zoneout == 0:
            return ZONEOUT_EVALUATIONS[self.zoneout_eval](self.zoneout)
        shape = (*driven.shape[:-1], self.d_hidden)
        return jax.random.bernoulli(key, self.zoneout, shape).astype(driven.dtype)

    def _next_window(
        self,
        seen: Float[Array, "B L D"],
        lengths: Integer[Array, " B"] | None,
        resets: Bool[Array, "B T"] | None,
    ) -> Float[Array, "B W D"] | None:
        """The last K - 1 valid inputs, zero where a reset came after them."""
        before = self.window - 1
        if before == 0:
            return None
        documents = None if resets is None else segments(resets, before)
        if lengths is None:
            steps = seen.shape[1] - before
            window = seen[:, steps:]
            if documents is None:
                return window
            return kept(documents[:, steps:] == documents[:, -1:], window)
        end = lengths[:, None]
        at = end + jnp.arange(before)
        window = jnp.take_along_axis(seen, at[..., None], axis=1)
        if documents is None:
            return window
        current = jnp.take_along_axis(documents, end + before - 1, axis=1)
        return kept(jnp.take_along_axis(documents, at, axis=1) == current, window)


class QRNNCell(QRNN):
    """The same without a read-out."""

    reads_out: ClassVar[bool] = False
