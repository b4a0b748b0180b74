"""Gated networks in which no unit reads another: what `para_gru.py` and `para_lstm.py` share.

Gates read h_{t-1} through vectors and x_t through matrices, one for each head. So the Jacobian of
a step has one number, or one block of 2 x 2, for each unit, and Newton's method is cheap.
Danieli et al. 2025 (arXiv 2510.21450, "ParaRNN"), whose three iterations are here as many as it
takes.
"""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Integer

from lru.layers.base import RecurrentParam
from lru.layers.cell import remember
from lru.layers.heads import head_count, multiply_blocks
from lru.layers.newton import NewtonLayer
from lru.scan.methods import states_before

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
        """Draw the parameters; options without a sentence here are those of `NewtonLayer`.

        Args:
            d_model: width D of inputs and outputs.
            d_hidden: width N of the state.
            n_heads: number H of equal parts of inputs and state that are joined by matrices of
                their own; it divides both widths, and by default is 1.
            chrono: draw biases of forget gates, or against them those of update gates, for memories
                of up to so many steps; None spaces them from 0 to -1.
            time_method: sequential for one step after another; newton for all at once, here the
                same as quasi_newton. auto is sequential.
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
        n_heads = head_count(1 if n_heads is None else n_heads, d_model=d_model, d_hidden=d_hidden)

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
        arguments, options = self.problem(x, state, lengths, resets, reverse)
        recurrence, parameters, inputs, start = arguments
        states, _, report = self.solved(*arguments, **options)
        fresh = options["reset_to"] or [None] * len(start)
        keep = None if options["resets"] is None else ~options["resets"]
        before = [
            states_before(s, first, reverse, keep, new)
            for s, first, new in zip(states, start, fresh, strict=True)
        ]
        gates, _ = recurrence.gates(parameters, inputs, jnp.stack(before, axis=-2))
        found = dict(zip(self.state_names + self.gate_names, (*states, *gates), strict=True))
        return found if self.solver is None else {**found, "residual": report.residual}

    def problem(
        self, x: Float[Array, "B T D"], state: Any, lengths: Any, resets: Any, reverse: bool
    ) -> tuple[tuple, dict[str, Any]]:
        """See `NewtonLayer.problem`."""
        x, start, options = self.prepared(x, state, lengths, resets, reverse)
        dtype = start[0].dtype
        vectors = [p[...].astype(dtype) for p in (self.A, self.C) if p is not None]
        inputs = self._inputs(x).astype(dtype)
        return (self.recurrence, tuple(vectors), inputs, start), options

    def _inputs(self, x: Float[Array, "B T D"]) -> Float[Array, "B T S"]:
        """Inputs of all gates."""
        B, rows = self.B[...], x.shape[:2]
        heads, per_head, gates, units = B.shape
        blocks = B.reshape(heads, per_head, gates * units)
        read = multiply_blocks(x, blocks, self.compute_dtype)
        read = jnp.swapaxes(read.reshape(*rows, heads, gates, units), 2, 3)
        width = heads * units
        return (read.reshape(*rows, gates, width) + self.b[...]).reshape(*rows, gates * width)
