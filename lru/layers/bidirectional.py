"""Both directions of time: the sum of one layer run forwards and one run backwards.

Each layer reads its state out linearly, so the sum equals one read-out of both states side by side
(S5, arXiv 2208.04933; LRU for Pathfinder and PathX, arXiv 2303.06349, table 9).
"""

from collections.abc import Callable, Mapping

import jax
from flax import nnx
from jaxtyping import Array, Bool, Float, Inexact, Integer, Key

from lru.layers.base import NoStepError, RecurrentLayer, State, noise


class Bidirectional(RecurrentLayer):
    """Wraps two layers of any kind; the backward one runs from the last step to the first.

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

    def observe(
        self,
        x: Float[Array, "B T D"],
        state: State = None,
        *,
        lengths: Integer[Array, " B"] | None = None,
        resets: Bool[Array, "B T"] | None = None,
        reverse: bool = False,
    ) -> dict[str, Inexact[Array, "B T N"]]:
        """See `RecurrentLayer.observe`; names have the direction in front of them."""
        self.check_inputs(x, state)
        return {
            f"{name} {part}": values
            for i, name in enumerate(("forward", "backward"))
            for part, values in getattr(self, name)
            .observe(
                x,
                None if state is None else state[i],
                lengths=lengths,
                resets=resets,
                reverse=(i == 1) != reverse,
            )
            .items()
        }

    def __call__(
        self,
        x: Float[Array, "B T D"],
        state: tuple[State, State] | None = None,
        *,
        lengths: Integer[Array, " B"] | None = None,
        resets: Bool[Array, "B T"] | None = None,
        reverse: bool = False,
        key: Key[Array, ""] | None = None,
    ) -> tuple[Float[Array, "B T D"], tuple[State, State]]:
        """See `RecurrentLayer.__call__`; with `reverse` each layer runs the other way."""
        self.check_inputs(x, state)
        keys = (None, None) if key is None else jax.random.split(key)
        outputs, after = [], []
        for i, layer in enumerate((self.forward, self.backward)):
            y, last = layer(
                x,
                None if state is None else state[i],
                lengths=lengths,
                resets=resets,
                reverse=(i == 1) != reverse,
                **noise(layer, keys[i]),
            )
            outputs.append(y)
            after.append(last)
        return outputs[0] + outputs[1], (after[0], after[1])
