"""Linear recurrent unit: the diagonal recurrence with a stable ring of normalised eigenvalues.

h_t = λ ⊙ h_{t-1} + γ ⊙ (B x_t) with λ = exp(-exp(ν) + i exp(θ)) and γ = sqrt(1 - |λ|²) at the
start; Orvieto et al. 2023 (arXiv 2303.06349), section 3 and appendix A.
"""

import numpy as np
from flax import nnx

from lru.layers.base import LAYERS
from lru.layers.diagonal import DiagonalRNN
from lru.layers.initializers import LENGTH


@LAYERS.register("lru")
class LRU(DiagonalRNN):
    """Linear Recurrent Unit: a complex diagonal recurrence, its eigenvalues drawn from a ring."""

    def __init__(
        self,
        d_model: int,
        d_hidden: int,
        *,
        A_init: str = "ring",
        parametrization: str = "stable_exp",
        gamma: bool = True,
        r_min: float = 0.4,
        r_max: float = 0.9,
        max_phase: float = np.pi,
        A_length: int = LENGTH,
        scan_method: str = "auto",
        chunk_length: int = 4096,
        compute_dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        """Draw the parameters; arguments as for `DiagonalRNN`."""
        super().__init__(
            d_model,
            d_hidden,
            A_init=A_init,
            parametrization=parametrization,
            gamma=gamma,
            r_min=r_min,
            r_max=r_max,
            max_phase=max_phase,
            A_length=A_length,
            scan_method=scan_method,
            chunk_length=chunk_length,
            compute_dtype=compute_dtype,
            rngs=rngs,
        )
