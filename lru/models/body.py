"""The recurrent layers of a network: plain cells one on another, or residual blocks."""

import jax
from flax import nnx
from jaxtyping import Array, Float, Key

from lru.models.cells import Cells, cell_of
from lru.models.config import ModelConfig
from lru.models.dropout import drop_features
from lru.models.encoder import Encoder

ONLY_OF = {
    "cells": ("p_hidden", "p_weight", "first_window", "dense"),
    "blocks": ("bidirectional", "norm", "prenorm"),
}
"""Fields of the configuration that the other body has no use for."""


def make_body(config: ModelConfig, *, cells_by_default: bool, rngs: nnx.Rngs) -> Cells | Encoder:
    """What `config.body` names.

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
    return drop_features(x, body.p_output, mask_key, locked=body.locked)
