"""Initial values of state spaces: eigenvalues of HiPPO-LegS, and step sizes."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from lru.layers.glorot import check_width

# Steps of no length would never learn to last.
SMALLEST_STEP = 1e-4


def hippo_legs(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues [n] and unitary eigenvectors [n, n] of the normal part of HiPPO-LegS.

    S = A + p p^T with A_ij = -sqrt((2i+1)(2j+1)) below the diagonal, -(i+1) on it and 0 above it,
    and p_i = sqrt(i + 1/2), i from 0: -1/2 plus a skew-symmetric matrix, so that every real part is
    -1/2. By imaginary part, from the smallest on. Smith et al. 2023 (arXiv 2208.04933), section 3.3
    and appendix B.
    """
    check_width(n)
    order = np.arange(n)
    root = np.sqrt(2 * order + 1)
    skew = np.outer(root, root) / 2
    skew = np.triu(skew, 1) - np.tril(skew, -1)
    imaginary, vectors = np.linalg.eigh(-1j * skew)
    return -0.5 + 1j * imaginary, vectors


def log_step_sizes(
    key: Key[Array, ""], shape: tuple[int, ...], dt_min: float, dt_max: float
) -> Float[Array, "..."]:
    """Draw logarithms of step sizes uniformly between those of two.

    Raises:
        ValueError: if not 0 < dt_min <= dt_max.
    """
    if not 0 < dt_min <= dt_max:
        raise ValueError(
            "dt_min and dt_max must satisfy 0 < dt_min <= dt_max, got "
            f"dt_min = {dt_min} and dt_max = {dt_max}"
        )
    low, high = math.log(dt_min), math.log(dt_max)
    return jax.random.uniform(key, shape, jnp.float32, minval=low, maxval=high)


def step_biases(key: Key[Array, ""], n: int, dt_min: float, dt_max: float) -> Float[Array, " n"]:
    """Biases whose softplus is such a step size, as those of `log_step_sizes`.

    Raises:
        ValueError: if not 0 < dt_min <= dt_max.
    """
    steps = jnp.maximum(jnp.exp(log_step_sizes(key, (n,), dt_min, dt_max)), SMALLEST_STEP)
    return steps + jnp.log(-jnp.expm1(-steps))


def step_sizes_for(steps: int, rate: float = 1.0) -> dict[str, float]:
    """Step sizes by which a mode that decays as exp(-rate t) remembers as those of `ring_for`."""
    return {"dt_min": 0.2 / (rate * steps), "dt_max": 20 / (rate * steps)}
