"""Causal convolution over time, y_t = sum_j x_{t-j} W_j with j < K, or of each channel by itself.

With matrices W_j the steps that each output sees lie side by side, [x_t | x_{t-1} | ...], and one
product with the stacked W_j does the rest. With an even K two outputs can share a part of their
work: with s = x_t (W_0 + W_1), y_t = s + (x_{t-1} - x_t) W_1 and y_{t+1} = s + (x_{t+1} - x_t) W_0
take three products in place of four (Winograd, "Arithmetic complexity of computations", 1980). That
is done on a CPU, where arithmetic is the bound (`benchmarks/qrnn.py`).
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Integer

from lru.layers.cell import uniform
from lru.scan.methods import masked
from lru.scan.products import product


def segments(
    resets: Bool[Array, "B T"], before: int, *, reverse: bool = False
) -> Int[Array, "B {before}+T"]:
    """The number of the document that each step belongs to, 0 for the steps before the first.

    Backwards the steps before the first stand behind the last.
    """
    if reverse:
        return jnp.pad(lax.cumsum(resets.astype(int), 1, reverse=True), ((0, 0), (0, before)))
    return jnp.pad(jnp.cumsum(resets, axis=1), ((0, 0), (before, 0)))


def since_reset(resets: Bool[Array, "B T"], *, reverse: bool) -> Int[Array, "B T"]:
    """Number of steps since the last marked one, in either direction; 0 at that."""
    time = jnp.arange(resets.shape[1])
    time = jnp.flip(time) if reverse else time
    marked = jnp.where(resets, time, 0)
    return time - lax.cummax(marked, 1, reverse=reverse)


def causal_convolution(
    x: Float[Array, "B L D"],
    kernel: Float[Array, "K D N"],
    resets: Bool[Array, "B T"] | None = None,
    fresh: Float[Array, "B W D"] | None = None,
    *,
    reverse: bool = False,
    compute_dtype: str = "float32",
) -> Float[Array, "B T N"]:
    """Convolve a sequence with a kernel.

    Args:
        x: the K - 1 steps before the first output, and the T steps of the outputs; with `reverse`
            the T steps and the K - 1 behind them.
        kernel: row j belongs to the input j steps back.
        resets: True where outputs see nothing of what was before.
        fresh: the K - 1 steps that they see in place of it, in the order of the run; None is zeros.
        reverse: let time run backwards.
        compute_dtype: of the product, as in `lru.scan.products`.
    """
    taps = kernel.shape[0]
    steps = x.shape[1] - taps + 1
    narrow = compute_dtype != "float32"
    if resets is None and not narrow and _pairs_pay(taps, steps, x.dtype):
        return _by_pairs(x, jnp.flip(kernel, 0) if reverse else kernel)
    return _multiply(_inputs(x, taps, resets, fresh, reverse), kernel, compute_dtype)


class DepthwiseConvolution(nnx.Module):
    """Convolution of each channel by itself, y_t = b + sum_j w_j * x_{t-j} with j < K.

    Attributes:
        kernel: weights [K, N]; row j belongs to the input j steps back.
        bias: of the outputs [N]; None without one.
    """

    def __init__(self, width: int, window: int, *, bias: bool = True, rngs: nnx.Rngs):
        """Draw the parameters from U(-1/sqrt(K), 1/sqrt(K)), as PyTorch does.

        Args:
            width: number N of channels.
            window: width K of the convolution: a step sees its own and K - 1 before.
            bias: whether to have one.
            rngs: source of the initial parameters.

        Raises:
            ValueError: if the window is less than 1.
        """
        if window < 1:
            raise ValueError(f"window must be at least 1, got {window}")
        self.kernel = nnx.Param(uniform(rngs.params(), (window, width), window))
        self.bias = nnx.Param(uniform(rngs.params(), (width,), window)) if bias else None

    def initial_window(self, rows: int) -> Float[Array, "B W N"] | None:
        """Zeros for the K - 1 inputs before the first one; None where K is 1."""
        window, width = self.kernel.shape
        dtype = jnp.result_type(self.kernel[...], jnp.float32)
        return jnp.zeros((rows, window - 1, width), dtype) if window > 1 else None

    def __call__(
        self,
        x: Float[Array, "B T N"],
        window: Float[Array, "B W N"] | None,
        *,
        lengths: Integer[Array, " B"] | None = None,
        resets: Bool[Array, "B T"] | None = None,
        fresh: Float[Array, "B W N"] | None = None,
        reverse: bool = False,
    ) -> tuple[Float[Array, "B T N"], Float[Array, "B W N"] | None]:
        """Convolve a sequence.

        Args:
            x: inputs, zero at padding.
            window: the K - 1 inputs before the first one, in the order of the run.
            lengths: number of valid steps of each row.
            resets: marks of `lru.layers.base.reset_marks`: outputs see nothing of what was before.
            fresh: the K - 1 inputs that they see in place of it; None is zeros.
            reverse: run from the last valid step to the first.

        Returns:
            The outputs, and the window to hand on, of the type of the one given.
        """
        kernel = self.kernel[...]
        taps = kernel.shape[0]
        seen = x
        if window is not None:
            seen = with_window(x.astype(window.dtype), window, lengths, reverse)
        inputs = _inputs(seen, taps, resets, fresh, reverse)
        y = jnp.zeros((), kernel.dtype) if self.bias is None else self.bias[...]
        y = y + sum(w_j * x_j for w_j, x_j in zip(kernel, inputs, strict=True))
        return y, next_window(seen, taps - 1, fresh, lengths, resets, reverse)


def with_window(
    x: Float[Array, "B T D"],
    window: Float[Array, "B W D"],
    lengths: Integer[Array, " B"] | None,
    reverse: bool,
) -> Float[Array, "B L D"]:
    """The inputs, and in front of the first one in the direction of the run the window."""
    if not reverse:
        return jnp.concatenate([window, x], axis=1)
    seen = jnp.concatenate([x, jnp.flip(window, 1)], axis=1)
    if lengths is None:
        return seen
    before = window.shape[1]
    rows = jnp.arange(x.shape[0])[:, None]
    seen = seen.at[:, x.shape[1] :].set(0)
    return seen.at[rows, lengths[:, None] + jnp.arange(before)].set(jnp.flip(window, 1))


def next_window(
    seen: Float[Array, "B L D"],
    before: int,
    fresh: Float[Array, "B W D"] | None,
    lengths: Integer[Array, " B"] | None,
    resets: Bool[Array, "B T"] | None,
    reverse: bool,
) -> Float[Array, "B W D"] | None:
    """The window after the last valid step, and None for one of no steps.

    Args:
        seen: the inputs `with_window`.
        before: number K - 1 of steps in a window.
        fresh: what a reset puts in its place; None is zeros.
        lengths: number of valid steps of each row.
        resets: True where the inputs before are left behind.
        reverse: whether time runs backwards.
    """
    if before == 0:
        return None
    steps = seen.shape[1] - before

    def last(x: Array) -> Array:
        if reverse:
            return jnp.flip(x[:, :before], 1)
        if lengths is None:
            return x[:, steps:]
        at = lengths[:, None] + jnp.arange(before)
        return jnp.take_along_axis(x, at.reshape(at.shape + (1,) * (x.ndim - 2)), axis=1)

    window = last(seen)
    if resets is None:
        return window
    documents = last(segments(resets, before, reverse=reverse))
    same = documents == documents[:, -1:]
    if fresh is None:
        return masked(same, window)
    ages = since_reset(resets, reverse=reverse)
    if reverse:
        age = ages[:, :1]
    else:
        end = jnp.full(seen.shape[0], steps) if lengths is None else lengths
        age = jnp.take_along_axis(ages, jnp.maximum(end[:, None] - 1, 0), axis=1)
    return jnp.where(same[..., None], window, entries(fresh, age + 1 + jnp.arange(before)))


def _inputs(
    x: Float[Array, "B L D"],
    taps: int,
    resets: Bool[Array, "B T"] | None,
    fresh: Float[Array, "B W D"] | None,
    reverse: bool,
) -> list[Float[Array, "B T D"]]:
    """For each row of a kernel the inputs that it multiplies at all steps."""
    steps = x.shape[1] - taps + 1

    def windows(x: Array) -> list[Array]:
        starts = range(taps) if reverse else range(taps - 1, -1, -1)
        return [x[:, start : start + steps] for start in starts]

    inputs = windows(x)
    if resets is None or taps == 1:
        return inputs
    documents = windows(segments(resets, taps - 1, reverse=reverse))
    same = [document == documents[0] for document in documents]
    if fresh is None:
        return [masked(*pair) for pair in zip(same, inputs, strict=True)]
    first = since_reset(resets, reverse=reverse) + taps - 1
    return [
        jnp.where(same_j[..., None], x_j, entries(fresh, first - j))
        for j, (same_j, x_j) in enumerate(zip(same, inputs, strict=True))
    ]


def entries(window: Float[Array, "B W D"], index: Integer[Array, "B S"]) -> Float[Array, "B S D"]:
    """Entries of each row of a window; the nearest one where there is none."""
    index = jnp.clip(index, 0, window.shape[1] - 1)
    return jnp.take_along_axis(window, index[..., None], axis=1)


def _pairs_pay(taps: int, steps: Any, dtype: jnp.dtype) -> bool:
    """Not in half precision: differences of neighbours would be rounded to it."""
    on_cpu = jax.default_backend() == "cpu" and jnp.finfo(dtype).bits >= 32
    # T is a symbol when a program is exported.
    return on_cpu and taps % 2 == 0 and isinstance(steps, int) and steps > 1


def _multiply(
    inputs: Sequence[Float[Array, "B T D"]],
    kernel: Float[Array, "K D N"],
    compute_dtype: str = "float32",
) -> Float[Array, "B T N"]:
    """One product for the inputs of all rows of the kernel."""
    x = jnp.concatenate(inputs, axis=-1) if len(inputs) > 1 else inputs[0]
    return product(x, kernel.reshape(-1, kernel.shape[-1]), compute_dtype)


def _by_pairs(x: Float[Array, "B L D"], kernel: Float[Array, "K D N"]) -> Float[Array, "B T N"]:
    """Three products for every two outputs and two taps, for an even number of taps."""
    taps = kernel.shape[0]
    steps = x.shape[1] - taps + 1
    pairs = (steps + 1) // 2
    x = jnp.pad(x, ((0, 0), (0, steps % 2), (0, 0)))
    # In a window of two taps and two outputs: the later input of the first output is the middle.
    first, middle, last = (x[:, i : x.shape[1] - 1 + i : 2] for i in (0, 1, 2))

    def windows(inputs: Array) -> list[Array]:
        start = taps // 2 - 1
        return [inputs[:, start - j : start - j + pairs] for j in range(taps // 2)]

    recent, older = kernel[0::2], kernel[1::2]
    shared = _multiply(windows(middle), recent + older)
    even = _multiply(windows(first - middle), older)
    odd = _multiply(windows(last - middle), recent)
    out = shared[:, :, None] + jnp.stack([even, odd], axis=2)
    return out.reshape(len(x), 2 * pairs, out.shape[-1])[:, :steps]
