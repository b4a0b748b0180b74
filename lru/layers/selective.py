"""Selective state spaces: what `mamba.py` and `mamba2.py` share.

Inputs are mapped to N channels and pass a short causal convolution of each; a recurrence whose
factors follow from them makes the outputs, which the inputs gate.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Integer

from lru.layers.base import RecurrentParam, zeros
from lru.layers.convolution import DepthwiseConvolution
from lru.layers.state_spaces import step_sizes_for
from lru.layers.timed import TimedLayer
from lru.scan import linear_scan
from lru.scan.products import product


class SelectiveState(NamedTuple):
    """State of a selective state space.

    Attributes:
        h: M numbers for each of the N channels: [B, M, N], or [B, H, M, P] where heads have P
            channels.
        window: the last K - 1 inputs of the convolution [B, K - 1, C]; None where K is 1.
    """

    h: Float[Array, "B ..."]
    window: Float[Array, "B W C"] | None


class SelectiveLayer(TimedLayer):
    """Base of selective state spaces.

    A subclass has `enter`, `recurrence`, `scan`, `transitions` and `leave`.

    Attributes:
        state_shape: that of h of one row.
        convolution: of the channels before the recurrence.
        A_log: logarithms of rates; the rates themselves are -exp(A_log).
        dt_bias: biases of step sizes, which are their softplus.
    """

    scans_in_chunks = True

    state_shape: tuple[int, ...]
    convolution: DepthwiseConvolution
    A_log: RecurrentParam
    dt_bias: RecurrentParam

    def __init__(
        self,
        d_model: int,
        d_hidden: int,
        *,
        d_state: int,
        chunk_length: int,
        compute_dtype: str,
        scan_method: str = "auto",
    ):
        """Check the options."""
        super().__init__(d_model, d_hidden, chunk_length, compute_dtype, scan_method)
        if d_state < 1:
            raise ValueError(f"d_state must be at least 1, got {d_state}")
        self.d_state = d_state

    @classmethod
    def remembering(cls, steps: int) -> dict[str, Any]:
        """Step sizes for the middle of the rates, which are 1 to 16."""
        return step_sizes_for(steps, rate=4.0)

    def enter(self, x: Float[Array, "B T D"]) -> tuple[Float[Array, "B T C"], tuple[Array, ...]]:
        """Inputs of the convolution, and all else that comes from the inputs."""
        raise NotImplementedError

    def recurrence(
        self, u: Float[Array, "B T C"], beside: tuple[Array, ...], dt: Float[Array, "B T 1"] | None
    ) -> tuple[tuple[Array, ...], Float[Array, "B T N"], Float[Array, "B T _"]]:
        """Arguments of the scan, the channels that skip it, and step sizes."""
        raise NotImplementedError

    def scan(self, *arguments: Array, **options: Any) -> tuple[Array, Array]:
        """The scan, from its arguments and the first state to outputs and the last state."""
        raise NotImplementedError

    def transitions(self, *arguments: Array) -> tuple[Array, Array]:
        """Factors and inputs of all numbers of the state, from the arguments of the scan."""
        raise NotImplementedError

    def leave(
        self, y: Array, u: Float[Array, "B T N"], beside: tuple[Array, ...]
    ) -> Float[Array, "B T D"]:
        """The outputs of the layer, from those of the scan and the channels that skip it."""
        raise NotImplementedError

    @zeros
    def initial_state(self, batch_size: int) -> SelectiveState:
        """Zeros."""
        held = (self.A_log, self.dt_bias, self.convolution.kernel)
        dtype = jnp.result_type(jnp.float32, *(p[...] for p in held))
        h = jnp.zeros((batch_size, *self.state_shape), dtype)
        return SelectiveState(h, self.convolution.initial_window(batch_size))

    def whole(
        self,
        x: Float[Array, "B T D"],
        state: SelectiveState | None,
        lengths: Integer[Array, " B"] | None,
        resets: Bool[Array, "B T"] | None,
        reverse: bool,
        dt: Float[Array, "B T"] | None = None,
    ) -> tuple[Float[Array, "B T D"], SelectiveState]:
        """See `ChunkedLayer.whole`."""
        problem = self._problem(x, state, lengths, resets, reverse, dt)
        arguments, h, options, u, beside, _, window = problem
        y, h = self.scan(*arguments, h, chunk_length=self.chunk_length, **options)
        return self.leave(y, u, beside).astype(x.dtype), SelectiveState(h, window)

    def states(
        self,
        x: Float[Array, "B T D"],
        state: SelectiveState | None,
        lengths: Integer[Array, " B"] | None,
        resets: Bool[Array, "B T"] | None,
        reverse: bool,
        dt: Float[Array, "B T"] | None = None,
    ) -> dict[str, Float[Array, "B T _"]]:
        """The states, all numbers of a step in one row, and step sizes as "step_size"."""
        problem = self._problem(x, state, lengths, resets, reverse, dt)
        arguments, h, options, _, _, steps, _ = problem
        width = math.prod(self.state_shape)
        factors, inputs = self.transitions(*arguments)
        shape = (*x.shape[:2], width)
        fresh = options.pop("reset_to")
        states, _ = linear_scan(
            jnp.broadcast_to(factors, inputs.shape).reshape(shape),
            inputs.reshape(shape),
            h.reshape(-1, width),
            reset_to=None if fresh is None else fresh.reshape(-1, width),
            **options,
        )
        return {"state": states, "step_size": steps}

    def _problem(
        self,
        x: Array,
        state: SelectiveState | None,
        lengths: Array | None,
        resets: Array | None,
        reverse: bool,
        dt: Array | None = None,
    ) -> tuple[tuple[Array, ...], Array, dict[str, Any], Array, tuple, Array, Array | None]:
        """Arguments, first state and options of the scan, what goes past it, and the window."""
        start = self.initial_rows(x.shape[0]) if state is None else state
        fresh = self.reset_state(x.shape[0])
        options = {"lengths": lengths, "resets": resets, "reverse": reverse}
        seen, beside = self.enter(x)
        of_reset = None if fresh is None else fresh.window
        u, window = self.convolution(seen, start.window, fresh=of_reset, **options)
        dt = None if dt is None else dt[..., None]
        arguments, u, steps = self.recurrence(jax.nn.silu(u), beside, dt)
        arguments = tuple(z.astype(start.h.dtype) for z in arguments)
        options["reset_to"] = None if fresh is None else fresh.h
        return arguments, start.h, options, u, beside, steps, window

    def step_sizes(
        self, pre_activations: Float[Array, "B T _"], dt: Float[Array, "B T 1"] | None
    ) -> Float[Array, "B T _"]:
        """Step sizes, each longer by the duration of its step."""
        steps = jax.nn.softplus(pre_activations + self.dt_bias[...])
        return steps if dt is None else steps * dt

    def multiply(self, x: Float[Array, "B T _"], weight: nnx.Variable) -> Float[Array, "B T M"]:
        """`product` in the type of the weights."""
        return product(x.astype(weight.dtype), weight[...], self.compute_dtype)
