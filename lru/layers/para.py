"""Gated networks in which no unit reads another: what `para_gru.py` and `para_lstm.py` share.

Gates read h_{t-1} through vectors and x_t through matrices, one for each head. So the Jacobian of
a step has one number, or one block of 2 x 2, for each unit, and Newton's method is cheap.
Danieli et al. 2025 (arXiv 2510.21450, "ParaRNN"), whose three iterations are here as many as it
takes.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Integer

from lru.layers.base import RecurrentParam, reset_marks, zeros
from lru.layers.cell import remember, without_padding
from lru.layers.newton import NewtonLayer
from lru.scan.methods import previous, step_counts
from lru.scan.products import product

Fields = tuple[Array, ...]


class UnitRecurrence(NamedTuple):
    """A `Recurrence` of units by themselves.

    Attributes:
        forward: recurrent vectors, inputs of the gates [..., G, N] and the fields before [..., N],
            to the gates and the fields after.
    """

    forward: Callable[[Any, Array, Fields], tuple[Fields, Fields]]
    elementwise = True

    def gates(
        self, parameters: Any, x: Float[Array, "*rows S"], before: Float[Array, "*rows P N"]
    ) -> tuple[Fields, Fields]:
        """The gates of a step and the fields after it."""
        width = before.shape[-1]
        inputs = x.reshape(*x.shape[:-1], x.shape[-1] // width, width)
        return self.forward(parameters, inputs, tuple(jnp.moveaxis(before, -2, 0)))

    def step(
        self, parameters: Any, x: Float[Array, "*rows S"], before: Float[Array, "*rows P N"]
    ) -> Float[Array, "*rows P N"]:
        """See `Recurrence.step`."""
        return jnp.stack(self.gates(parameters, x, before)[1], axis=-2)

    def units(
        self,
        parameters: Any,
        x: Float[Array, "*rows S"],
        own: Float[Array, "*rows P N"],
        others: Float[Array, "*rows P N"],
    ) -> Float[Array, "*rows P N"]:
        """See `Recurrence.units`: there are no others."""
        del others
        return self.step(parameters, x, own)


class ParaRNN(NewtonLayer):
    """Base of the layers whose gates read the state unit by unit.

    Attributes:
        recurrence: one step.
        state_type: of its states, the first of which is h.
        state_names: of these, and
        gate_names: of the three gates, as `observe` has them.
        n_peepholes: number of gates that read c.
        chrono_sign: 1 where the first gate keeps the state, -1 where it lets it go.
        fan_out: width beside D / H in the bound of the input weights.
        A: recurrent weights of the gates [3, N].
        B: input weights [H, D / H, 3, N / H].
        C: weights of peepholes [2, N]; None without.
        b: biases [3, N].
        readout: see `CellLayer`.
    """

    main_weight: ClassVar[str] = "A"
    recurrence: ClassVar[UnitRecurrence]
    state_type: ClassVar[Any]
    state_names: ClassVar[tuple[str, ...]]
    gate_names: ClassVar[tuple[str, ...]]
    n_peepholes: ClassVar[int] = 0
    chrono_sign: ClassVar[float] = 1.0

    def __init__(
        self,
        d_model: int,
        d_hidden: int,
        *,
        n_heads: int | None = None,
        chrono: int | None = None,
        time_method: str = "auto",
        newton_iterations: int = 100,
        newton_damping: float = 0.0,
        compute_dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        """Draw the parameters.

        Args:
            d_model: width D of inputs and outputs.
            d_hidden: width N of the state.
            n_heads: number H of equal parts of inputs and state that are joined by matrices of
                their own; it divides both widths, and by default is 1.
            chrono: draw biases of forget gates, or against them those of update gates, for memories
                of up to so many steps; None spaces them from 0 to -1.
            time_method: sequential for one step after another; newton for all at once, here the
                same as quasi_newton. auto is sequential.
            newton_iterations: most iterations of newton and quasi_newton, which then run one step
                after another.
            newton_damping: share of the Jacobian that their iterations leave out; more than 0 where
                they diverge.
            compute_dtype: type of matrix products, float32 or bfloat16; states, parameters and sums
                stay float32.
            rngs: source of the initial parameters.

        Raises:
            ValueError: if a value is out of range.
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
        n_heads = 1 if n_heads is None else n_heads
        if n_heads < 1 or d_model % n_heads or d_hidden % n_heads:
            raise ValueError(
                f"n_heads must divide d_model = {d_model} and d_hidden = {d_hidden}, got {n_heads}"
            )

        def normal(rows: int) -> RecurrentParam:
            draw = jax.random.normal(rngs.params(), (rows, d_hidden), jnp.float32)
            return RecurrentParam(draw * (4 / (5 * d_hidden)) ** 0.5)

        shape = (n_heads, d_model // n_heads, 3, d_hidden // n_heads)
        bound = (6 / (shape[1] + self.fan_out(d_hidden, n_heads))) ** 0.5
        self.A = normal(3)
        self.C = normal(self.n_peepholes) if self.n_peepholes else None
        self.B = nnx.Param(
            jax.random.uniform(rngs.params(), shape, jnp.float32, minval=-bound, maxval=bound)
        )
        first = jnp.arange(3)[:, None] == 0
        self.b = nnx.Param(jnp.where(first, -jnp.linspace(0, 1, d_hidden, dtype=jnp.float32), 0))
        remember(self.b, d_hidden, chrono, {0: self.chrono_sign}, rngs)

    @staticmethod
    def fan_out(d_hidden: int, n_heads: int) -> int:
        """Width beside D / H in the bound of the input weights."""
        return d_hidden // n_heads

    @zeros
    def initial_state(self, batch_size: int) -> tuple[Float[Array, "B N"], ...]:
        """Zeros."""
        dtype = jnp.result_type(self.A[...], jnp.float32)
        shape = (batch_size, self.d_hidden)
        return self.state_type(*(jnp.zeros(shape, dtype) for _ in self.state_type._fields))

    def __call__(
        self,
        x: Float[Array, "B T D"],
        state: tuple[Float[Array, "B N"], ...] | None = None,
        *,
        lengths: Integer[Array, " B"] | None = None,
        resets: Bool[Array, "B T"] | None = None,
        reverse: bool = False,
    ) -> tuple[Float[Array, "B T M"], tuple[Float[Array, "B N"], ...]]:
        """See `RecurrentLayer.__call__`."""
        arguments, options = self._problem(x, state, lengths, resets, reverse)
        (h, *_), last, report = self.solved(*arguments, **options)
        self.note(report)
        lengths = options["lengths"]
        return self.read_out(without_padding(h, lengths), x.dtype, lengths), self.state_type(*last)

    def observe(
        self,
        x: Float[Array, "B T D"],
        state: tuple[Float[Array, "B N"], ...] | None = None,
        *,
        lengths: Integer[Array, " B"] | None = None,
        resets: Bool[Array, "B T"] | None = None,
        reverse: bool = False,
    ) -> dict[str, Float[Array, "B T N"]]:
        """States and gates; of Newton's method the residual. See `RecurrentLayer.observe`."""
        arguments, options = self._problem(x, state, lengths, resets, reverse)
        recurrence, parameters, inputs, start = arguments
        states, _, report = self.solved(*arguments, **options)
        fresh = options["reset_to"] or tuple(jnp.zeros_like(field) for field in start)
        before = [previous(s, first, reverse) for s, first in zip(states, start, strict=True)]
        if (marked := options["resets"]) is not None:
            before = [
                jnp.where(marked[..., None], new[:, None], s)
                for s, new in zip(before, fresh, strict=True)
            ]
        gates, _ = recurrence.gates(parameters, inputs, jnp.stack(before, axis=-2))
        found = dict(zip(self.state_names + self.gate_names, (*states, *gates), strict=True))
        return found if self.solver is None else {**found, "residual": report.residual}

    def _problem(
        self, x: Array, state: Fields | None, lengths: Array | None, resets: Any, reverse: bool
    ) -> tuple[tuple, dict[str, Any]]:
        """The arguments of `NewtonLayer.solved`."""
        self.check_inputs(x, state)
        lengths = step_counts(lengths, x.shape[1])
        start, fresh = self.start(x, state), self.reset_state(x.shape[0])
        dtype = start[0].dtype
        vectors = [p[...].astype(dtype) for p in (self.A, self.C) if p is not None]
        inputs = self._inputs(without_padding(x, lengths)).astype(dtype)
        return (self.recurrence, tuple(vectors), inputs, tuple(start)), {
            "lengths": lengths,
            "resets": reset_marks(resets, lengths, reverse),
            "reverse": reverse,
            "reset_to": None if fresh is None else tuple(fresh),
        }

    def _inputs(self, x: Float[Array, "B T D"]) -> Float[Array, "B T S"]:
        """Inputs of all gates."""
        B, rows = self.B[...], x.shape[:2]
        heads, per_head, gates, units = B.shape
        by_head = jax.vmap(partial(product, compute_dtype=self.compute_dtype), (2, 0), 2)
        read = by_head(
            x.astype(B.dtype).reshape(*rows, heads, per_head),
            B.reshape(heads, per_head, gates * units),
        )
        read = jnp.swapaxes(read.reshape(*rows, heads, gates, units), 2, 3)
        width = heads * units
        return (read.reshape(*rows, gates, width) + self.b[...]).reshape(*rows, gates * width)
