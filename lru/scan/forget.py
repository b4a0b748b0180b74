"""The recurrence of a forget gate: h_t = f_t x_t + (1 - f_t) h_{t-1}.

Bradbury et al. 2016 (arXiv 1611.01576), f-pooling, with f the share of the new value.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Inexact, Integer

from lru.scan.linear import check_common, linear_scan
from lru.scan.methods import masked, step_counts, valid_steps


def forget_mult(
    f: Float[Array, "B T N"],
    x: Inexact[Array, "B T N"],
    h0: Inexact[Array, "B N"] | None = None,
    *,
    reverse: bool = False,
    resets: Bool[Array, "B T"] | None = None,
    lengths: Integer[Array, " B"] | None = None,
    reset_to: Inexact[Array, "B N"] | None = None,
    method: str = "auto",
) -> tuple[Inexact[Array, "B T N"], Inexact[Array, "B N"]]:
    """Mix each input into the state.

    Args:
        f: shares of the inputs [B, T, N].
        x: inputs [B, T, N].
        h0: as in `linear_scan`, as are the other arguments.
        reverse: run from the last step to the first.
        resets: [B, T] bool; a marked step drops the previous state.
        lengths: [B] number of valid steps. At padding h is zero, gradients are zero, and f and x
            may hold anything, NaN included.
        reset_to: state that a marked step finds in place of the previous one; None is zero.
        method: a name in `LINEAR_METHODS`, or "auto".

    Returns:
        h [B, T, N] and h_last [B, N], as `linear_scan` does.

    Raises:
        ValueError: if an argument has the wrong shape or type.
    """
    if f.shape != x.shape:
        raise ValueError(f"f has shape {f.shape}, but x {x.shape} allows {x.shape}")
    check_common(x, h0, resets, lengths)
    lengths = step_counts(lengths, x.shape[1])
    valid = valid_steps(x, lengths)
    f, x = masked(valid, f), masked(valid, x)
    # In half precision 1 - f would be 1 for small f.
    f, x = (array.astype(jnp.promote_types(array.dtype, jnp.float32)) for array in (f, x))
    return linear_scan(
        *(1 - f, f * x, h0),
        reverse=reverse,
        resets=resets,
        lengths=lengths,
        reset_to=reset_to,
        method=method,
        donate=True,
    )
