"""Cells on top of one another with dropout of language models: the body of AWD-LSTM and AWD-QRNN.

As `Encoder` it takes features [B, T, D] and a list of states; it has no norms and no residuals. In
a densely connected one each cell but the first also reads what the cell below it read (Huang et al.
2017, arXiv 1608.06993; of QRNNs: arXiv 1611.01576, section 3.1).
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Inexact, Integer, Key

from lru.layers import LAYERS, layer_options, resolve_options
from lru.layers.base import State, noise
from lru.layers.cell import CellLayer
from lru.models.config import ModelConfig
from lru.models.dropout import drop_features, drop_weights


def cell_of(model: str) -> type[CellLayer] | None:
    """The cell of a layer that gives out its state; None for other layers."""
    layer: Any = LAYERS[model]
    kinds = layer.__subclasses__() if issubclass(layer, CellLayer) else []
    return next((kind for kind in kinds if not kind.reads_out), None)


class Cells(nnx.Module):
    """`n_layers` cells of width N, the last of width D.

    Attributes:
        cells: one a layer.
        p_output: dropout rate of the outputs, for those who read them.
        locked: whether masks are the same for all steps.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        """Build the cells; see `ModelConfig`.

        Raises:
            ValueError: if the model has no cell, or an option does not fit.
        """
        cell: Any = cell_of(config.model)
        if cell is None:
            raise ValueError(
                f"body must be blocks for model {config.model!r}, which is no cell, got cells"
            )
        if config.first_window is not None and "window" not in layer_options(LAYERS[config.model]):
            raise ValueError(
                f"first_window must be None for model {config.model!r}, which has no window, "
                f"got {config.first_window}"
            )
        first = {} if config.first_window is None else {"window": config.first_window}
        cells, width = [], config.d_model
        for layer in range(config.n_layers):
            chosen = dict(config.options) | (first if layer == 0 else {})
            last = layer == config.n_layers - 1
            d_hidden = config.d_model if last else config.d_hidden
            options = resolve_options(config.model, chosen)
            cells.append(cell(width, d_hidden, rngs=rngs, **options))
            width = d_hidden + (width if config.dense else 0)
        self.cells = nnx.List(cells)
        self.p_hidden, self.p_weight = config.p_hidden, config.p_weight
        self.p_output = config.p_dropout
        self.locked, self.dense = config.locked_dropout, config.dense

    def initial_state(self, batch_size: int) -> list[State]:
        """The state of every cell before the first step."""
        return [cell.initial_state(batch_size) for cell in self.cells]

    def __call__(
        self,
        x: Float[Array, "B T D"],
        state: list[State] | None = None,
        *,
        lengths: Integer[Array, " B"] | None = None,
        resets: Bool[Array, "B T"] | None = None,
        train: bool = False,
        key: Key[Array, ""] | None = None,
    ) -> tuple[Float[Array, "B T D"], list[State]]:
        """Run all cells; as `Encoder.__call__`. `train` has no meaning here."""
        del train
        states = [None] * len(self.cells) if state is None else state
        after, seen = [], x
        for layer, (cell, before) in enumerate(zip(self.cells, states, strict=True)):
            keys = (
                [None] * 3 if key is None else jax.random.split(jax.random.fold_in(key, layer), 3)
            )
            if layer > 0:
                seen = self._next(
                    seen, drop_features(x, self.p_hidden, keys[0], locked=self.locked)
                )
            dropped = drop_weights(cell, self.p_weight, keys[1])
            x, new = dropped(seen, before, lengths=lengths, resets=resets, **noise(cell, keys[2]))
            after.append(new)
        return x, after

    def step(
        self, x_t: Float[Array, "B D"], state: list[State]
    ) -> tuple[Float[Array, "B D"], list[State]]:
        """Advance all cells one step, without dropout."""
        # Not `step` of the layers, whose outputs have the width of their inputs.
        x, after = self(x_t[:, None], state)
        return x[:, 0], after

    def observe(self, x: Float[Array, "B T D"]) -> list[dict[str, Inexact[Array, "B T N"]]]:
        """What happens inside each cell while x is read from the start, without dropout."""
        found, seen = [], x
        for layer, cell in enumerate(self.cells):
            if layer > 0:
                seen = self._next(seen, x)
            found.append(cell.observe(seen))
            x, _ = cell(seen)
        return found

    def _next(self, seen: Float[Array, "B T M"], h: Float[Array, "B T N"]) -> Float[Array, "B T P"]:
        """What a cell reads, if the one below it read `seen` and gave h."""
        return jnp.concatenate([seen, h], axis=-1) if self.dense else h
