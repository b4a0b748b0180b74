"""Clipping of gradients by their global norm, as `torch.nn.utils.clip_grad_norm_` does it."""

from typing import TypeVar

import jax
import jax.numpy as jnp
import optax

Gradient = TypeVar("Gradient")


def check_clip_norm(clip_norm: float | None) -> None:
    """Refuse a norm to clip to that is not positive.

    Raises:
        ValueError: naming the argument and what was given.
    """
    if clip_norm is not None and not clip_norm > 0:
        raise ValueError(f"clip_norm must be positive, got {clip_norm}")


def clip_by_norm(gradient: Gradient, clip_norm: float | None) -> Gradient:
    """The gradient times min(1, clip_norm / (norm + 1e-6)).

    Args:
        gradient: any tree of arrays, whose entries together have the norm.
        clip_norm: the largest norm; None leaves the gradient as it is.
    """
    if clip_norm is None:
        return gradient
    # The 1e-6, which PyTorch adds and optax does not, shows in comparisons in double precision.
    factor = jnp.minimum(1, clip_norm / (optax.tree.norm(gradient) + 1e-6))
    return jax.tree.map(lambda leaf: leaf * factor.astype(leaf.dtype), gradient)
