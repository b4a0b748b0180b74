"""Spectra of the recurrences inside a model."""

import numpy as np
from flax import nnx

from lru.analysis.states import recurrent_layers


def eigenvalues(model: nnx.Module) -> dict[str, np.ndarray]:
    """Eigenvalues [N] of every constant recurrence of a model, named by layer and direction."""
    return {
        f"layer {i} {name}".strip(): np.asarray(spectrum)
        for i, layer in enumerate(recurrent_layers(model))
        for name, spectrum in layer.eigenvalues().items()
    }
