"""Layers whose units mix inputs into a state by gates, each unit by itself: what they share.

The products of the inputs of gates and candidates are made for all of time at once, with the parts
side by side; what is left is a scan of N numbers.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Inexact, Integer

from lru.layers.base import State, known_scan_method, without_padding, zeros
from lru.layers.cell import CellLayer
from lru.scan import LINEAR_METHODS, Elementwise, linear_scan, nonlinear_scan
from lru.scan.products import product


class Run(NamedTuple):
    """All that a layer does over time.

    Attributes:
        y: output before the read-out.
        last: state after the last valid step.
        inside: states and gates, by name.
    """

    y: Float[Array, "B T N"]
    last: State
    inside: Mapping[str, Inexact[Array, "B T M"]]


class ElementwiseLayer(CellLayer):
    """Base of the layers without a product of the state; a subclass has `weight` and `run`.

    Attributes:
        weight: input weights of the parts, side by side [D, G N].
        bias: of the parts [G N]; None without biases.
        scan_method: algorithm of linear scans.
        readout: see `CellLayer`.
    """

    main_weight: ClassVar[str] = "weight"
    weight: nnx.Param
    bias: nnx.Param | None

    def __init__(
        self,
        d_model: int,
        d_hidden: int,
        *,
        scan_method: str = "auto",
        compute_dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        """Draw the read-out."""
        super().__init__(d_model, d_hidden, compute_dtype=compute_dtype, rngs=rngs)
        self.scan_method = known_scan_method(scan_method, LINEAR_METHODS)

    @zeros
    def initial_state(self, batch_size: int) -> State:
        """Zeros."""
        dtype = jnp.result_type(jnp.float32, self.weight[...])
        return jnp.zeros((batch_size, self.d_hidden), dtype)

    def run(self, x: Float[Array, "B T D"], start: State, options: dict[str, Any]) -> Run:
        """The layer over all steps at once.

        Args:
            x: inputs, zero at padding.
            start: state before the first step.
            options: of a scan; see `RecurrentLayer.prepared`.
        """
        raise NotImplementedError

    def biases(self) -> Float[Array, " M"] | None:
        """Terms that are added to the parts, side by side."""
        return None if self.bias is None else self.bias[...]

    def inputs(self, x: Float[Array, "B T D"]) -> Float[Array, "B T M"]:
        """The parts of all steps, side by side."""
        weight, biases = self.weight[...], self.biases()
        read = product(x.astype(weight.dtype), weight, self.compute_dtype)
        return read if biases is None else read + biases

    def linear_states(
        self,
        a: Float[Array, "B T N"],
        b: Float[Array, "B T N"],
        start: Float[Array, "B N"],
        options: dict[str, Any],
    ) -> tuple[Float[Array, "B T N"], Float[Array, "B N"]]:
        """The states of h_t = a_t h_{t-1} + b_t, written over b, and the last one."""
        how = {"method": self.scan_method, "compute_dtype": self.compute_dtype, "donate": True}
        return linear_scan(a, b, start, **options, **how)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        state: State = None,
        *,
        lengths: Integer[Array, " B"] | None = None,
        resets: Bool[Array, "B T"] | None = None,
        reverse: bool = False,
    ) -> tuple[Float[Array, "B T M"], State]:
        """See `RecurrentLayer.__call__`."""
        prepared = self.prepared(x, state, lengths, resets, reverse)
        y, last, _ = self.run(*prepared)
        lengths = prepared[2]["lengths"]
        return self.read_out(without_padding(y, lengths), x.dtype, lengths), last

    def observe(
        self,
        x: Float[Array, "B T D"],
        state: State = None,
        *,
        lengths: Integer[Array, " B"] | None = None,
        resets: Bool[Array, "B T"] | None = None,
        reverse: bool = False,
    ) -> dict[str, Inexact[Array, "B T M"]]:
        """See `RecurrentLayer.observe`."""
        return dict(self.run(*self.prepared(x, state, lengths, resets, reverse)).inside)


def run_units(
    recurrence: Elementwise,
    parameters: Any,
    x: Float[Array, "B T S"],
    start: Float[Array, "B N"],
    options: dict[str, Any],
) -> tuple[Float[Array, "B T N"], Float[Array, "B N"]]:
    """The states of a nonlinear recurrence, and the last; options are those of a scan."""
    fresh = options["reset_to"]
    options = {**options, "reset_to": None if fresh is None else fresh[:, None]}
    states, last, _ = nonlinear_scan(recurrence, parameters, x, start[:, None], **options)
    return states[:, :, 0], last[:, 0]


def known_biases(biases: int) -> bool:
    """True for one bias vector of each gate, False for none.

    Raises:
        ValueError: if it is neither.
    """
    if biases not in (0, 1):
        raise ValueError(f"biases must be 0 or 1, got {biases}")
    return bool(biases)
