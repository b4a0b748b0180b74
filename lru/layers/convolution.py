"""Causal convolution over time, as matrix products: y_t = sum_j x_{t-j} W_j with j < K.

The steps that each output sees lie side by side, [x_t | x_{t-1} | ...], and one product with the
stacked W_j does the rest. With an even K two outputs can share a part of their work: with
s = x_t (W_0 + W_1), y_t = s + (x_{t-1} - x_t) W_1 and y_{t+1} = s + (x_{t+1} - x_t) W_0 take three
products in place of four (Winograd, "Arithmetic complexity of computations", 1980). That is done
on a CPU, where arithmetic is the bound (`benchmarks/qrnn.py`).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from lru.scan.methods import kept

Kernels = list[Float[Array, "K D N"]]


@jax.custom_vjp
def products(x: Float[Array, "R D"], weights: list[Float[Array, "D N"]]) -> list[Array]:
    """The products of one matrix with several, each an array of its own.

    Halves of one wide product would have to be put together again in the backward pass.
    """
    return [x @ weight for weight in weights]


def _products_backward(
    saved: tuple[Array, list[Array]], gradients: list[Array]
) -> tuple[Array, list[Array]]:
    x, weights = saved
    dx = sum(
        (_contract(g, weight, 1) for g, weight in zip(gradients[1:], weights[1:], strict=True)),
        start=_contract(gradients[0], weights[0], 1),
    )
    return dx, [_contract(x, g, 0) for g in gradients]


def _contract(a: Array, b: Array, axis: int) -> Array:
    return lax.dot_general(a, b, (((axis,), (axis,)), ((), ())))


products.defvjp(lambda x, weights: (products(x, weights), (x, weights)), _products_backward)


def segments(resets: Bool[Array, "B T"], before: int) -> Int[Array, "B {before}+T"]:
    """The number of the document that each step belongs to, 0 for the steps before the first."""
    return jnp.pad(jnp.cumsum(resets, axis=1), ((0, 0), (before, 0)))


def causal_convolution(
    x: Float[Array, "B L D"],
    kernels: Kernels,
    resets: Bool[Array, "B T"] | None = None,
) -> list[Float[Array, "B T N"]]:
    """Convolve one sequence with several kernels.

    Args:
        x: the K - 1 steps before the first output, and the T steps of the outputs.
        kernels: arrays [K, D, N], in which row j belongs to the input j steps back.
        resets: True where outputs see nothing of what was before.

    Returns:
        One output for each kernel.
    """
    taps = kernels[0].shape[0]
    wide = jnp.finfo(x.dtype).bits >= 32
    steps = x.shape[1] - taps + 1
    # T may be a symbol when a program is exported.
    if (
        taps % 2 == 0
        and resets is None
        and wide
        and isinstance(steps, int)
        and steps > 1
        and jax.default_backend() == "cpu"
    ):
        return _by_pairs(x, kernels)
    taken = [x[:, taps - 1 - j : taps - 1 - j + steps] for j in range(taps)]
    if resets is not None and taps > 1:
        document = segments(resets, taps - 1)
        here = document[:, taps - 1 :]
        taken = [
            kept(document[:, taps - 1 - j : taps - 1 - j + steps] == here, x_j)
            for j, x_j in enumerate(taken)
        ]
    return _multiply(taken, kernels)


def _multiply(taken: Sequence[Array], kernels: Kernels) -> list[Array]:
    """The products of inputs [B, T, D], one for each row of a kernel, with all kernels."""
    x = jnp.concatenate(taken, axis=-1) if len(taken) > 1 else taken[0]
    out = products(
        x.reshape(-1, x.shape[-1]),
        [kernel.reshape(-1, kernel.shape[-1]) for kernel in kernels],
    )
    return [y.reshape(*x.shape[:2], -1) for y in out]


def _by_pairs(x: Array, kernels: Kernels) -> list[Array]:
    """Three products for every two outputs and two taps, for an even number of taps."""
    taps = kernels[0].shape[0]
    steps = x.shape[1] - taps + 1
    pairs = (steps + 1) // 2
    x = jnp.pad(x, ((0, 0), (0, steps % 2), (0, 0)))
    # In a window of two taps and two outputs: the later input of the first output is the middle.
    first, middle, last = (x[:, i : x.shape[1] - 1 + i : 2] for i in (0, 1, 2))

    def windows(inputs: Array) -> list[Array]:
        start = taps // 2 - 1
        return [inputs[:, start - j : start - j + pairs] for j in range(taps // 2)]

    recent, older = [k[0::2] for k in kernels], [k[1::2] for k in kernels]
    both = [a + b for a, b in zip(recent, older, strict=True)]
    shared = _multiply(windows(middle), both)
    even = _multiply(windows(first - middle), older)
    odd = _multiply(windows(last - middle), recent)
    return [
        (s[:, :, None] + jnp.stack([e, o], axis=2)).reshape(len(s), 2 * pairs, -1)[:, :steps]
        for s, e, o in zip(shared, even, odd, strict=True)
    ]
