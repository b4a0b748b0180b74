"""Layers whose nonlinear recurrence may run for all steps at once, by Newton's method.

Every method gives the states of single steps; see `lru.scan.nonlinear`.
"""

from contextlib import suppress
from typing import Any, ClassVar, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from flax.errors import TraceContextError
from jaxtyping import Array, Bool, Float, Integer

from lru.layers.base import without_padding, zeros
from lru.layers.cell import CellLayer
from lru.scan import Recurrence, Report, TimeMethod, nonlinear_scan
from lru.scan.select import NONLINEAR


class NewtonReport(nnx.Variable):
    """Iterations and largest residual of the last call of a layer, and failures of all so far.

    Training carries it on, as the statistics of a norm, and logs it.
    """


class NewtonLayer(CellLayer):
    """Base of the layers with the option `time_method`; a subclass has `problem`.

    Attributes:
        state_type: of the states, fields [B, N], the first of which is h.
        state_names: of these, and
        gate_names: of the gates, as `observe` has them.
        solver: the `NewtonReport` [3]; None unless Newton's method was asked for.
    """

    state_type: ClassVar[Any]
    state_names: ClassVar[tuple[str, ...]]
    gate_names: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        d_model: int,
        d_hidden: int,
        *,
        time_method: str = "auto",
        newton_iterations: int = 100,
        newton_damping: float = 0.0,
        compute_dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        """Draw the read-out.

        Args:
            d_model: width D of inputs and outputs.
            d_hidden: width N of the state.
            time_method: sequential for one step after another; newton for all at once, by products
                of N x N matrices; quasi_newton by parts of them, which are cheap and need more
                iterations. auto is sequential.
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
        super().__init__(d_model, d_hidden, compute_dtype=compute_dtype, rngs=rngs)
        known = ("auto", *get_args(TimeMethod))
        if time_method not in known:
            raise ValueError(f"time_method must be one of {', '.join(known)}, got {time_method!r}")
        if newton_iterations < 1:
            raise ValueError(f"newton_iterations must be at least 1, got {newton_iterations}")
        if not 0 <= newton_damping <= 1:
            raise ValueError(f"newton_damping must be from 0 to 1, got {newton_damping}")
        self.time_method: Any = NONLINEAR if time_method == "auto" else time_method
        self.newton_iterations, self.newton_damping = newton_iterations, newton_damping
        solves = self.time_method != "sequential"
        self.solver = NewtonReport(jnp.zeros(3, jnp.float32)) if solves else None

    @zeros
    def initial_state(self, batch_size: int) -> tuple[Float[Array, "B N"], ...]:
        """Zeros."""
        dtype = jnp.result_type(getattr(self, self.main_weight)[...], jnp.float32)
        shape = (batch_size, self.d_hidden)
        return self.state_type(*(jnp.zeros(shape, dtype) for _ in self.state_type._fields))

    def prepared(
        self, x: Float[Array, "B T D"], state: Any, lengths: Any, resets: Any, reverse: bool
    ) -> tuple[Float[Array, "B T D"], tuple[Float[Array, "B N"], ...], dict[str, Any]]:
        """See `RecurrentLayer.prepared`; states are plain tuples."""
        x, start, options = super().prepared(x, state, lengths, resets, reverse)
        fresh = options["reset_to"]
        return x, tuple(start), options | {"reset_to": None if fresh is None else tuple(fresh)}

    def problem(
        self, x: Float[Array, "B T D"], state: Any, lengths: Any, resets: Any, reverse: bool
    ) -> tuple[tuple, dict[str, Any]]:
        """Positional arguments and options of `run`, from those of a call."""
        raise NotImplementedError

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
        arguments, options = self.problem(x, state, lengths, resets, reverse)
        h, last = self.run(*arguments, **options)
        return self.read_out(h, x.dtype, options["lengths"]), self.state_type(*last)

    def run(
        self, *arguments: Any, **options: Any
    ) -> tuple[Float[Array, "B T N"], tuple[Float[Array, "B N"], ...]]:
        """All h, zero at padding, and the last state; arguments are those of `solved`."""
        (h, *_), last, report = self.solved(*arguments, **options)
        self.note(report)
        return without_padding(h, options["lengths"]), last

    def solved(
        self,
        recurrence: Recurrence,
        parameters: Any,
        x: Float[Array, "B T S"],
        start: tuple[Float[Array, "B N"], ...],
        *,
        lengths: Integer[Array, " B"] | None,
        resets: Bool[Array, "B T"] | None,
        reverse: bool,
        reset_to: tuple[Float[Array, "B N"], ...] | None,
    ) -> tuple[tuple[Float[Array, "B T N"], ...], tuple[Float[Array, "B N"], ...], Report]:
        """The fields of all states, those of the last, and a report.

        Arguments are those of `nonlinear_scan`, with the fields of states apart.
        """
        states, last, report = nonlinear_scan(
            recurrence,
            parameters,
            x,
            jnp.stack(start, axis=1),
            method=self.time_method,
            limit=self.newton_iterations,
            damping=self.newton_damping,
            lengths=lengths,
            resets=resets,
            reverse=reverse,
            reset_to=None if reset_to is None else jnp.stack(reset_to, axis=1),
        )
        fields = range(len(start))
        return tuple(states[:, :, i] for i in fields), tuple(last[:, i] for i in fields), report

    def note(self, report: Report) -> None:
        """Keep a report; where the layer lies outside of what is being traced there is no place."""
        if self.solver is None:
            return
        numbers = (
            report.iterations,
            jnp.max(report.residual, initial=0),
            self.solver[2] + ~report.converged,
        )
        noted = jnp.stack([jnp.asarray(x, self.solver[...].dtype) for x in numbers])
        with suppress(TraceContextError):
            self.solver[...] = jax.lax.stop_gradient(noted)
