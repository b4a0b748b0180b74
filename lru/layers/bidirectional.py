"""Both directions of time: the sum of one layer run forwards and one run backwards.

Each layer reads its state out linearly, so the sum equals one read-out of both states side by side
(S5, arXiv 2208.04933; LRU for Pathfinder and PathX, arXiv 2303.06349, table 9).
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Integer, Key, Shaped

from lru.layers.base import NoStepError, RecurrentLayer, State, noise
from lru.scan.methods import step_counts


def reverse_rows(
    x: Shaped[Array, "B T ..."], lengths: Integer[Array, " B"] | None
) -> Shaped[Array, "B T ..."]:
    """Reverse the valid steps of each row and leave its padding in place.

    Args:
        x: rows, of any shape after time.
        lengths: number of valid steps of each row, from 0 to T; None if all are valid.
    """
    if lengths is None:
        return jnp.flip(x, axis=1)
    time = jnp.arange(x.shape[1])
    last = lengths[:, None] - 1
    source = jnp.where(time <= last, last - time, time)
    return jnp.take_along_axis(x, source.reshape(source.shape + (1,) * (x.ndim - 2)), axis=1)


def reverse_resets(
    resets: Bool[Array, "B T"], lengths: Integer[Array, " B"] | None
) -> Bool[Array, "B T"]:
    """Where reversed rows start afresh, if `resets` mark the first step of each document.

    Backwards, a document is entered at its last step: the one before the next reset.
    """
    steps = resets.shape[1]
    entered = jnp.roll(resets, -1, axis=1)
    last = steps - 1 if lengths is None else lengths[:, None] - 1
    entered &= jnp.arange(steps) < last
    return reverse_rows(entered, lengths)


class Bidirectional(RecurrentLayer):
    """Wraps two layers of any kind; the backward one sees each row's valid steps in reverse.

    The state is a pair: the forward layer's carry after the last step, and the backward layer's
    carry after the first. There is no step mode: the future is not known.
    """

    def __init__(self, make_layer: Callable[[nnx.Rngs], RecurrentLayer], *, rngs: nnx.Rngs):
        """Build both layers.

        Args:
            make_layer: builds one layer from a source of parameters; called twice.
            rngs: source of the initial parameters.
        """
        self.forward = make_layer(rngs)
        self.backward = make_layer(rngs)
        self.noisy = self.forward.noisy
        super().__init__(self.forward.d_model, self.forward.d_hidden)

    def eigenvalues(self) -> Mapping[str, jax.Array]:
        """The spectra of both layers."""
        return {
            f"{direction} {name}".strip(): spectrum
            for direction in ("forward", "backward")
            for name, spectrum in getattr(self, direction).eigenvalues().items()
        }

    def initial_state(self, batch_size: int) -> tuple[State, State]:
        """Both layers' initial states."""
        return self.forward.initial_state(batch_size), self.backward.initial_state(batch_size)

    def step(self, x_t: Float[Array, "B D"], state: State) -> tuple[Float[Array, "B D"], State]:
        """Refused.

        Raises:
            NoStepError: always.
        """
        raise NoStepError("a bidirectional layer has no step mode: its output needs the future")

    def __call__(
        self,
        x: Float[Array, "B T D"],
        state: tuple[State, State] | None = None,
        *,
        lengths: Integer[Array, " B"] | None = None,
        resets: Bool[Array, "B T"] | None = None,
        key: Key[Array, ""] | None = None,
    ) -> tuple[Float[Array, "B T D"], tuple[State, State]]:
        """See `RecurrentLayer.__call__`; `resets` mark the first step of each document."""
        self.check_inputs(x, state)
        lengths = step_counts(lengths, x.shape[1])
        state_forward, state_backward = state if state is not None else (None, None)
        keys = (None, None) if key is None else jax.random.split(key)
        y_forward, state_forward = self.forward(
            x, state_forward, lengths=lengths, resets=resets, **noise(self.forward, keys[0])
        )
        if resets is not None:
            resets = reverse_resets(resets, lengths)
        y_backward, state_backward = self.backward(
            reverse_rows(x, lengths),
            state_backward,
            lengths=lengths,
            resets=resets,
            **noise(self.backward, keys[1]),
        )
        return y_forward + reverse_rows(y_backward, lengths), (state_forward, state_backward)
