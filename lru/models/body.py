"""The recurrent layers of a network: plain cells one on another, or residual blocks."""

from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Bool, Float, Integer, Key

from lru.layers import LAYERS, layer_options, resolve_options
from lru.layers.base import State
from lru.layers.cell import CellLayer
from lru.layers.dropout import drop_features
from lru.layers.stack import CellStack
from lru.models.config import ModelConfig
from lru.models.encoder import Encoder

ONLY_OF = {
    "cells": ("p_hidden", "p_weight", "first_window", "dense"),
    "blocks": ("bidirectional", "norm", "prenorm"),
}
"""Fields of the configuration that the other body has no use for."""


def cell_of(model: str) -> type[CellLayer] | None:
    """The cell of a layer that gives out its state; None for other layers."""
    layer: Any = LAYERS[model]
    kinds = layer.__subclasses__() if issubclass(layer, CellLayer) else []
    return next((kind for kind in kinds if not kind.reads_out), None)


class Cells(CellStack):
    """`n_layers` cells of width N, the last of width D, without norms and residuals.

    Attributes:
        p_output: dropout rate of the outputs, for those who read them.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        """Build the cells; see `ModelConfig`.

        Raises:
            ValueError: if the model has no cell, or an option does not fit.
        """
        cell = cell_of(config.model)
        if cell is None:
            raise ValueError(
                f"body must be blocks for model {config.model!r}, which is no cell, got cells"
            )
        options = resolve_options(config.model, config.options)
        if config.first_window is not None:
            if "window" not in layer_options(LAYERS[config.model]):
                raise ValueError(
                    f"first_window must be None for model {config.model!r}, which has no window, "
                    f"got {config.first_window}"
                )
            others = [options["window"]] * (config.n_layers - 1)
            options["window"] = [config.first_window, *others]
        super().__init__(
            cell,
            config.d_model,
            [config.d_hidden] * (config.n_layers - 1) + [config.d_model],
            dense=config.dense,
            dropout=config.p_hidden,
            weight_dropout=config.p_weight,
            locked_dropout=config.locked_dropout,
            rngs=rngs,
            **options,
        )
        self.p_output = config.p_dropout

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
        return super().__call__(x, state, lengths=lengths, resets=resets, key=key)


def make_body(config: ModelConfig, *, cells_by_default: bool, rngs: nnx.Rngs) -> Cells | Encoder:
    """Build the body that `config.body` names.

    Args:
        config: the network.
        cells_by_default: what its body `auto` means where the model has a cell; else blocks.
        rngs: source of the initial parameters.

    Raises:
        ValueError: if a value is not for that body.
    """
    by_default = cells_by_default and cell_of(config.model) is not None
    body = config.body if config.body != "auto" else "cells" if by_default else "blocks"
    other = "blocks" if body == "cells" else "cells"
    for name, value in config.changed(ONLY_OF[other]).items():
        raise ValueError(
            f"{name} is of a body of {other}, but that of model {config.model!r} is of {body}; "
            f"got {value!r}"
        )
    return (Cells if body == "cells" else Encoder)(config, rngs=rngs)


def drop_outputs(
    body: Cells | Encoder, x: Float[Array, "B T D"], key: Key[Array, ""] | None
) -> Float[Array, "B T D"]:
    """Dropout of what a classifier's body gives out; blocks have had theirs inside."""
    if key is None or isinstance(body, Encoder):
        return x
    mask_key = jax.random.fold_in(key, len(body.cells))
    return drop_features(x, body.p_output, mask_key, locked=body.locked_dropout)
