"""Layers with a step size, whose steps may last unequally long: samples at irregular times.

A call, `observe` and `step` take `dt`: how long each step lasts, in units of the regular one. It
multiplies the layer's own step size, so the transition varies over time; without it all steps last
one unit, and the transition is constant where the layer's is.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Inexact, Integer

from lru.layers.base import State
from lru.layers.chunks import ChunkedLayer
from lru.scan.methods import step_counts, valid_steps


class TimedLayer(ChunkedLayer):
    """A layer whose calls take the duration of each step.

    The `whole` and `states` of a subclass have a last argument `dt`: None, or [B, T] in the type of
    the state's real numbers, one at padding. Gradients go through it.
    """

    def __call__(
        self,
        x: Float[Array, "B T D"],
        state: State = None,
        *,
        lengths: Integer[Array, " B"] | None = None,
        resets: Bool[Array, "B T"] | None = None,
        reverse: bool = False,
        dt: Float[Array, "B T"] | None = None,
    ) -> tuple[Float[Array, "B T D"], State]:
        """Run the layer over a sequence; other arguments are those of `RecurrentLayer.__call__`.

        Args:
            x: inputs.
            state: where to start.
            lengths: number of valid steps of each row.
            resets: True where a row starts afresh.
            reverse: run from the last valid step to the first.
            dt: durations of the steps, above 0, in units of the regular step: that of step t
                multiplies the layer's step size there, in both directions. None if all are 1. At
                padding it may hold anything.

        Raises:
            ValueError: if an argument has the wrong shape or dtype, or a duration, where it is
                known, is not above 0.
        """
        self.check_inputs(x, state)
        return self._over_time(self._series(x, dt, lengths), state, lengths, resets, reverse)

    def observe(
        self,
        x: Float[Array, "B T D"],
        state: State = None,
        *,
        lengths: Integer[Array, " B"] | None = None,
        resets: Bool[Array, "B T"] | None = None,
        reverse: bool = False,
        dt: Float[Array, "B T"] | None = None,
    ) -> dict[str, Inexact[Array, "B T N"]]:
        """See `RecurrentLayer.observe`; `dt` is that of a call."""
        self.check_inputs(x, state)
        return self._observed(self._series(x, dt, lengths), state, lengths, resets, reverse)

    def step(
        self, x_t: Float[Array, "B D"], state: State, dt: Float[Array, " B"] | None = None
    ) -> tuple[Float[Array, "B D"], State]:
        """Advance one step, which lasts `dt` regular ones."""
        y, state = self(x_t[:, None], state, dt=None if dt is None else dt[:, None])
        return y[:, 0], state

    def _series(self, x: Array, dt: Any, lengths: Array | None) -> tuple[Array, ...]:
        """The inputs, and the durations if there are some."""
        if dt is None:
            return (x,)
        if getattr(dt, "shape", None) != x.shape[:2] or not jnp.issubdtype(dt.dtype, jnp.floating):
            given = f"{dt.dtype} {dt.shape}" if hasattr(dt, "dtype") else type(dt).__name__
            raise ValueError(f"dt must be real floats of shape {x.shape[:2]}, got {given}")
        lengths = step_counts(lengths, x.shape[1])
        if not isinstance(dt, Tracer) and not isinstance(lengths, Tracer):
            # By NumPy, as lengths are checked.
            steps = np.arange(x.shape[1])
            valid = steps < (x.shape[1] if lengths is None else np.asarray(lengths)[:, None])
            wrong = np.asarray(dt)[valid & ~((np.asarray(dt) > 0) & np.isfinite(dt))]
            if wrong.size:
                raise ValueError(f"dt must be above 0 and finite, got {wrong[0]}")
        valid = valid_steps(x, lengths)
        dt = dt.astype(jnp.finfo(jax.tree.leaves(self.initial_state(1))[0].dtype).dtype)
        return x, dt if valid is None else jnp.where(valid, dt, 1)
