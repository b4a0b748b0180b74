"""Networks with a matrix from state to gates: what `lstm.py`, `gru.py` and `elman.py` share.

Gates are W_ih x_t + b_ih + W_hh h_{t-1} + b_hh under a nonlinearity, with the weights, the order of
gates and the initial values of PyTorch. The products W_ih x_t are made for all of time at once.
"""

from collections.abc import Mapping
from itertools import count
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Bool, Float, Integer

from lru.layers.base import RecurrentParam
from lru.layers.cell import remember, uniform
from lru.layers.newton import NewtonLayer
from lru.registry import UnknownNameError, known_names
from lru.scan import GatedCell, GatedRecurrence, Report, gated_scan, gated_steps
from lru.scan.products import product


class GatedRNN(NewtonLayer):
    """Base of the layers whose state passes through a matrix into gates.

    Attributes:
        cell: one step.
        n_gates: number of gates G of the cell; parameters have columns of those that are not
            constant.
        apart: how many of the last gates take x and h in apart; the others take their sum.
        weight_ih: input weights [D, G N].
        weight_hh: recurrent weights [N, G N].
        bias_ih: bias [G N] beside the input; None without biases.
        bias_hh: bias [G N] beside the state; None unless there are two.
        readout: see `CellLayer`.
    """

    main_weight: ClassVar[str] = "weight_hh"
    cell: ClassVar[GatedCell]
    n_gates: ClassVar[int]
    apart: ClassVar[int] = 0

    def __init__(
        self,
        d_model: int,
        d_hidden: int,
        *,
        biases: int = 2,
        chrono: int | None = None,
        time_method: str = "auto",
        newton_iterations: int = 100,
        newton_damping: float = 0.0,
        compute_dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        """Draw the parameters; options without a sentence here are those of `NewtonLayer`.

        Args:
            d_model: width D of inputs and outputs.
            d_hidden: width N of the state.
            biases: number of bias vectors of each gate.
            chrono: draw biases of forget gates for memories of up to so many steps, and those of
                input gates against them; None draws them as all others.
            rngs: source of the initial parameters.
        """
        super().__init__(
            d_model,
            d_hidden,
            time_method=time_method,
            newton_iterations=newton_iterations,
            newton_damping=newton_damping,
            compute_dtype=compute_dtype,
            rngs=rngs,
        )
        if biases not in (0, 1, 2):
            raise ValueError(f"biases must be 0, 1 or 2, got {biases}")
        width = (self.n_gates - len(self.constant_gates)) * d_hidden
        self.weight_ih = nnx.Param(uniform(rngs.params(), (d_model, width), d_hidden))
        self.weight_hh = RecurrentParam(uniform(rngs.params(), (d_hidden, width), d_hidden))
        self.bias_ih, self.bias_hh = (
            nnx.Param(uniform(rngs.params(), (width,), d_hidden)) if biases > i else None
            for i in range(2)
        )
        if chrono is not None:
            remember(self.bias_ih, d_hidden, chrono, self.chrono_signs, rngs)
            if self.bias_hh is not None:
                by_gate = self.bias_hh[...].reshape(-1, d_hidden)
                self.bias_hh[...] = by_gate.at[jnp.array([*self.chrono_signs])].set(0).ravel()

    @property
    def chrono_signs(self) -> Mapping[int, float]:
        """Signs of the biases that `chrono` draws, by place among gates with parameters."""
        raise NotImplementedError

    @property
    def constant_gates(self) -> dict[int, float]:
        """Pre-activations of the gates without parameters, by place in the order of gates."""
        return {}

    def run(
        self, *arguments: Any, **options: Any
    ) -> tuple[Float[Array, "B T N"], tuple[Float[Array, "B N"], ...]]:
        """See `NewtonLayer.run`; here one step after another has a loop of its own."""
        if self.solver is None:
            return gated_scan(*arguments, **options, compute_dtype=self.compute_dtype)
        return super().run(*arguments, **options)

    def solved(
        self, cell: GatedCell, pre_activations: Array, weight_hh: Array, start: Any, **options: Any
    ) -> tuple[Any, Any, Report]:
        """See `NewtonLayer.solved`; arguments are those of `gated_scan`."""
        recurrence = GatedRecurrence(cell, self.compute_dtype)
        return super().solved(recurrence, weight_hh, pre_activations, start, **options)

    def observe(
        self,
        x: Float[Array, "B T D"],
        state: tuple[Float[Array, "B N"], ...] | None = None,
        *,
        lengths: Integer[Array, " B"] | None = None,
        resets: Bool[Array, "B T"] | None = None,
        reverse: bool = False,
        force: Mapping[str, ArrayLike] | None = None,
    ) -> dict[str, Float[Array, "B T N"]]:
        """Record by name what happens inside at every step, with gates that are forced.

        Args:
            x: inputs, as all arguments but the last those of `RecurrentLayer.observe`.
            state: where to start.
            lengths: number of valid steps of each row; at padding nothing has a meaning.
            resets: True where a row starts afresh.
            reverse: run from the last valid step to the first.
            force: values [B, T, N] that gates have, by name, instead of their own, with which all
                that follows is computed; where they are NaN the gate is left as it is.

        Returns:
            The states and the gates, and of Newton's method where nothing is forced the
            "residual", which is that of rounding where it has converged.

        Raises:
            ValueError: if an argument has the wrong shape or dtype, or if there is no such gate.
        """
        arguments, options = self.problem(x, state, lengths, resets, reverse)
        forced = self._forced(force or {}, x, arguments[1].dtype)
        states, activations = gated_steps(
            *arguments, **options, compute_dtype=self.compute_dtype, forced=forced
        )
        # Beside the gates a cell may keep what its gradient needs.
        found = dict(zip(self.gate_names, activations, strict=False))
        if self.solver is not None and not force:
            found["residual"] = self.solved(*arguments, **options)[2].residual
        return dict(zip(self.state_names, states, strict=True)) | found

    def _forced(
        self, force: Mapping[str, ArrayLike], x: Array, dtype: DTypeLike
    ) -> dict[str, Array]:
        """The forced values, checked and of one type."""
        allowed = (*x.shape[:2], self.d_hidden)
        for name, values in force.items():
            if name not in self.gate_names:
                kind = type(self).__name__
                raise UnknownNameError(
                    f"force has no gate {name!r} in {kind}; {known_names(name, self.gate_names)}"
                )
            if jnp.shape(values) != allowed:
                raise ValueError(
                    f"force has {name} of shape {jnp.shape(values)}, but [B, T, N] = {allowed} is "
                    "allowed"
                )
        return {name: jnp.asarray(values, dtype) for name, values in force.items()}

    def problem(
        self, x: Float[Array, "B T D"], state: Any, lengths: Any, resets: Any, reverse: bool
    ) -> tuple[tuple, dict[str, Any]]:
        """See `NewtonLayer.problem`; arguments are those of `gated_scan`."""
        x, start, options = self.prepared(x, state, lengths, resets, reverse)
        dtype = start[0].dtype
        pre_activations = self._inputs(x).astype(dtype)
        weight_hh = self.weight_hh[...].astype(dtype)
        if self.constant_gates:
            pre_activations = self._with_gates(pre_activations, self.apart, self.constant_gates)
            # W has the last columns alone, and so can do without the first gates.
            first = next(gate for gate in count() if gate not in self.constant_gates)
            later = {gate - first: 0.0 for gate in self.constant_gates if gate > first}
            weight_hh = self._with_gates(weight_hh, 0, later)
        return (self.cell, pre_activations, weight_hh, start), options

    def _with_gates(
        self, x: Float[Array, "... S"], first: int, values: Mapping[int, float]
    ) -> Float[Array, "... M"]:
        """X with columns of more gates, N of one value each, where the gates begin at the first."""
        blocks = jnp.split(x, x.shape[-1] // self.d_hidden, axis=-1)
        for gate, value in values.items():
            blocks.insert(first + gate, jnp.full_like(blocks[0], value))
        return jnp.concatenate(blocks, axis=-1)

    def _inputs(self, x: Float[Array, "B T D"]) -> Float[Array, "B T S"]:
        """Inputs of each step beside h W_hh, which joins the last columns.

        The input parts of the gates that take it in apart come first and leave room at the end.
        """
        room = self.apart * self.d_hidden
        weight = jnp.roll(self.weight_ih[...], room, axis=1)
        pre_activations = product(x.astype(weight.dtype), weight, self.compute_dtype)
        pre_activations = jnp.pad(pre_activations, ((0, 0), (0, 0), (0, room)))
        if self.bias_ih is not None:
            pre_activations += jnp.pad(jnp.roll(self.bias_ih[...], room), (0, room))
        if self.bias_hh is not None:
            pre_activations += jnp.pad(self.bias_hh[...], (room, 0))
        return pre_activations
