"""Cells on top of one another with dropout of language models: the body of AWD-LSTM and AWD-QRNN.

As `Encoder` it takes features [B, T, D] and a list of states; it has no norms and no residuals.
"""

from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from lru.layers import LAYERS, resolve_options
from lru.layers.base import State, noise
from lru.layers.cell import CellLayer
from lru.models.config import ModelConfig
from lru.models.dropout import drop_features, drop_weights, dropped_weight


def cell_of(model: str) -> type[CellLayer] | None:
    """The cell of a layer that gives out its state; None for other layers."""
    layer: Any = LAYERS[model]
    kinds = layer.__subclasses__() if issubclass(layer, CellLayer) else []
    return next((kind for kind in kinds if not kind.reads_out), None)


class Cells(nnx.Module):
    """`n_layers` cells of width N, the last of width D.

    Attributes:
        cells: one a layer.
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
        first = {} if config.first_window is None else {"window": config.first_window}
        cells, width = [], config.d_model
        for layer in range(config.n_layers):
            chosen = dict(config.options) | (first if layer == 0 else {})
            last = layer == config.n_layers - 1
            d_hidden = config.d_model if last else config.d_hidden
            options = resolve_options(config.model, chosen)
            cells.append(cell(width, d_hidden, rngs=rngs, **options))
            width = d_hidden
        self.cells = nnx.List(cells)
        self.p_hidden, self.p_weight = config.p_hidden, config.p_weight
        self.locked = config.locked_dropout
        if self.p_weight > 0:
            dropped_weight(cells[0])

    def initial_state(self, batch_size: int) -> list[State]:
        """The state of every cell before the first step."""
        return [cell.initial_state(batch_size) for cell in self.cells]

    def __call__(
        self,
        x: Float[Array, "B T D"],
        state: list[State] | None = None,
        *,
        lengths: Int[Array, " B"] | None = None,
        resets: Bool[Array, "B T"] | None = None,
        train: bool = False,
        key: Key[Array, ""] | None = None,
    ) -> tuple[Float[Array, "B T D"], list[State]]:
        """Run all cells; as `Encoder.__call__`. `train` has no meaning here."""
        del train
        states = [None] * len(self.cells) if state is None else state
        after = []
        for layer, (cell, before) in enumerate(zip(self.cells, states, strict=True)):
            keys = (
                [None] * 3 if key is None else jax.random.split(jax.random.fold_in(key, layer), 3)
            )
            if layer > 0:
                x = drop_features(x, self.p_hidden, keys[0], locked=self.locked)
            dropped = drop_weights(cell, self.p_weight, keys[1])
            x, new = dropped(x, before, lengths=lengths, resets=resets, **noise(cell, keys[2]))
            after.append(new)
        return x, after

    def step(
        self, x_t: Float[Array, "B D"], state: list[State]
    ) -> tuple[Float[Array, "B D"], list[State]]:
        """Advance all cells one step, without dropout."""
        after = []
        for cell, before in zip(self.cells, state, strict=True):
            # Not `step` of a layer, whose outputs have the width of its inputs.
            y, new = cell(x_t[:, None], before)
            x_t = y[:, 0]
            after.append(new)
        return x_t, after
