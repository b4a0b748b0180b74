"""Spectra of the recurrences inside a model."""

import numpy as np
from flax import nnx

from lru.layers import RecurrentLayer


def eigenvalues(model: nnx.Module) -> dict[str, np.ndarray]:
    """Eigenvalues [N] of every constant recurrence of a model, named by layer and direction."""
    outermost: list[RecurrentLayer] = []
    for path, module in nnx.iter_modules(model):
        inside_another = "forward" in path or "backward" in path
        if isinstance(module, RecurrentLayer) and not inside_another:
            outermost.append(module)
    return {
        f"layer {i} {name}".strip(): np.asarray(spectrum)
        for i, layer in enumerate(outermost)
        for name, spectrum in layer.eigenvalues().items()
    }
