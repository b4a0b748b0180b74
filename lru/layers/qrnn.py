"""Quasi-recurrent network: gates from a causal convolution of the inputs, mixed into a state.

z = tanh(W_z * x + b_z), and f, o, i = sigmoid(W * x + b) likewise; then one of
f-pooling c_t = f_t c_{t-1} + (1 - f_t) z_t, h_t = c_t;
fo-pooling, the same with h_t = o_t c_t;
ifo-pooling c_t = f_t c_{t-1} + i_t z_t, h_t = o_t c_t.
Bradbury et al. 2016 (arXiv 1611.01576), section 2; zoneout: section 2.1. As in the paper f keeps
the old state; `torchqrnn` has 1 - f in its place, which `lru.interop.torch` converts.
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Integer, Key

from lru.layers.base import LAYERS, known_scan_method, zeros
from lru.layers.cell import CellLayer, remember, uniform
from lru.layers.convolution import causal_convolution, next_window, with_window
from lru.registry import Registry
from lru.scan import LINEAR_METHODS, linear_scan, pooled_scan
from lru.scan.pooling import GATES, gate_values


class QRNNState(NamedTuple):
    """State of a QRNN.

    Attributes:
        c: state before the output gate [B, N].
        window: the last K - 1 inputs [B, K - 1, D]; None where K is 1.
    """

    c: Float[Array, "B N"]
    window: Float[Array, "B W D"] | None


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
    splits_time = True

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
        chrono: int | None = None,
        scan_method: str = "auto",
        compute_dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        """Draw the parameters.

        Args:
            d_model: width D of inputs and outputs.
            d_hidden: width N of the state.
            gates: f, fo or ifo: the forget, output and input gates that there are.
            window: width K of the convolution over inputs: a step sees its own and K - 1 before.
            zoneout: probability that a unit keeps its state at a step, in training.
            zoneout_eval: zoneout in evaluation: expectation mixes by its probability, identity does
                without it.
            detach_window: stop gradients at the inputs that the previous chunk left.
            biases: number of bias vectors of each gate.
            chrono: draw biases of forget gates for memories of up to so many steps, and those of
                input gates, if there are some, against them; None draws them as all others.
            scan_method: algorithm of the scan; auto picks by platform.
            compute_dtype: type of matrix products, float32 or bfloat16; states, parameters and sums
                stay float32.
            rngs: source of the initial parameters.
        """
        super().__init__(d_model, d_hidden, compute_dtype=compute_dtype, rngs=rngs)
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
        signs = {1: 1.0, 3: -1.0} if gates == "ifo" else {1: 1.0}
        remember(self.bias, d_hidden, chrono, signs, rngs)

    @classmethod
    def remembering(cls, steps: int) -> dict[str, Any]:
        """Chrono initialisation, and a window of sqrt(T) steps.

        Gates between 0 and 1 only average what is further back, and tell it apart badly.
        """
        return {"chrono": steps, "window": max(2, math.isqrt(steps))}

    @zeros
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
        reverse: bool = False,
        key: Key[Array, ""] | None = None,
    ) -> tuple[Float[Array, "B T M"], QRNNState]:
        """See `RecurrentLayer.__call__`. `key` draws the zoneout of training; None evaluates."""
        pre_activations, c, options, window = self.problem(x, state, lengths, resets, reverse)
        h, c = pooled_scan(
            pre_activations,
            self._biases(pre_activations.dtype),
            c,
            gates=self.gates,
            zoneout=self.zoneout_mask(pre_activations, key),
            method=self.scan_method,
            **options,
        )
        return self.read_out(h, x.dtype, options["lengths"]), QRNNState(c, window)

    def observe(
        self,
        x: Float[Array, "B T D"],
        state: QRNNState | None = None,
        *,
        lengths: Integer[Array, " B"] | None = None,
        resets: Bool[Array, "B T"] | None = None,
        reverse: bool = False,
    ) -> dict[str, Float[Array, "B T N"]]:
        """See `RecurrentLayer.observe`."""
        pre_activations, c, options, _ = self.problem(x, state, lengths, resets, reverse)
        bias = self._biases(pre_activations.dtype)
        if bias is not None:
            pre_activations += bias
        zoneout = self.zoneout_mask(pre_activations, None)
        gates = gate_values(pre_activations, self.gates, zoneout)
        c, _ = linear_scan(gates.forget, gates.take * gates.candidate, c, **options)
        found = {"state": c, "forget_gate": gates.forget, "candidate": gates.candidate}
        if "i" in self.gates:
            found["input_gate"] = gates.take
        return found if gates.output is None else found | {"output_gate": gates.output}

    def _biases(self, dtype: DTypeLike) -> Float[Array, " M"] | None:
        return None if self.bias is None else self.bias[...].astype(dtype)

    def problem(
        self,
        x: Float[Array, "B T D"],
        state: QRNNState | None,
        lengths: Integer[Array, " B"] | None,
        resets: Bool[Array, "B T"] | None,
        reverse: bool,
    ) -> tuple[
        Float[Array, "B T M"], Float[Array, "B N"], dict[str, Any], Float[Array, "B W D"] | None
    ]:
        """Products of the inputs, first c and options of the scan, and the window to hand on."""
        x, start, options = self.prepared(x, state, lengths, resets, reverse)
        weight, fresh = self.weight[...], options["reset_to"]
        lengths, resets = options["lengths"], options["resets"]
        seen = x.astype(start.c.dtype)
        if start.window is not None:
            window = start.window
            window = jax.lax.stop_gradient(window) if self.detach_window else window
            seen = with_window(seen, window, lengths, reverse)
        afresh = None if fresh is None else fresh.window
        out = causal_convolution(
            seen.astype(weight.dtype),
            weight,
            resets,
            None if afresh is None else afresh.astype(weight.dtype),
            reverse=reverse,
            compute_dtype=self.compute_dtype,
        )
        window = next_window(seen, self.window - 1, afresh, lengths, resets, reverse)
        options["reset_to"] = None if fresh is None else fresh.c
        return out.astype(seen.dtype), start.c, options, window

    def zoneout_mask(
        self, pre_activations: Float[Array, "B T M"], key: Key[Array, ""] | None
    ) -> Float[Array, "B T N"] | float:
        """The share of each state that zoneout keeps."""
        if key is None or self.zoneout == 0:
            return ZONEOUT_EVALUATIONS[self.zoneout_eval](self.zoneout)
        shape = (*pre_activations.shape[:-1], self.d_hidden)
        return jax.random.bernoulli(key, self.zoneout, shape).astype(pre_activations.dtype)


class QRNNCell(QRNN):
    """The same without a read-out."""

    reads_out: ClassVar[bool] = False
