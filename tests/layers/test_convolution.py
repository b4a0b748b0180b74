"""Causal convolutions against the definition, by pairs of inputs and not, and of each channel."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lru.layers import convolution
from lru.layers.convolution import DepthwiseConvolution, causal_convolution

B, D, N = 2, 3, 4


def direct(x, kernel, resets):
    """y_t = sum_j x_{t-j} W_j, over the steps of the same document."""
    taps = kernel.shape[0]
    steps = x.shape[1] - taps + 1
    y = np.zeros((B, steps, N))
    for b in range(B):
        for t in range(steps):
            for j in range(taps):
                if not resets[b, max(t - j + 1, 0) : t + 1].any():
                    y[b, t] += x[b, taps - 1 + t - j] @ kernel[j]
    return y


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("taps", "steps"), [(1, 3), (2, 6), (2, 5), (3, 4), (4, 7), (6, 2)])
def test_equals_the_definition(taps, steps, packed):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((B, steps + taps - 1, D))
    kernel = rng.standard_normal((taps, D, N))
    resets = np.zeros((B, steps), bool)
    if packed:
        resets[0, steps // 2] = resets[1, 0] = True
    with jax.enable_x64(True):
        actual = causal_convolution(
            jnp.asarray(x), jnp.asarray(kernel), jnp.asarray(resets) if packed else None
        )
    np.testing.assert_allclose(actual, direct(x, kernel, resets), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 6])
def test_pairs_are_for_an_even_number_of_taps_and_more_than_one_step(steps, monkeypatch):
    """By pairs the multiplications are three quarters of the others."""
    x = jnp.ones((B, steps + 1, D))

    def multiplications():
        jaxpr = jax.make_jaxpr(partial(causal_convolution, resets=None))(x, jnp.ones((2, D, N)))
        return str(jaxpr).count("dot_general[")

    assert multiplications() == (3 if steps > 1 else 1)
    monkeypatch.setattr(convolution.jax, "default_backend", lambda: "gpu")
    assert multiplications() == 1


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("taps", [1, 4])
def test_of_each_channel_is_that_with_diagonal_matrices_and_hands_its_window_on(taps, reverse):
    layer = DepthwiseConvolution(D, taps, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (B, 9, D))
    window = layer.initial_window(B)
    resets = jnp.zeros((B, 9), bool).at[0, 3].set(True).at[1, 6].set(True)
    matrices = layer.kernel[...][:, :, None] * jnp.eye(D)
    around = ((0, 0), (0, taps - 1) if reverse else (taps - 1, 0), (0, 0))
    expected = causal_convolution(jnp.pad(x, around), matrices, resets, reverse=reverse)
    whole, last = layer(x, window, resets=resets, reverse=reverse)
    np.testing.assert_allclose(whole, expected + layer.bias[...], rtol=1e-5, atol=1e-6)

    parts = [slice(0, 4), slice(4, 9)]
    found = {}
    for part in reversed(parts) if reverse else parts:
        # The padding behind a part changes nothing.
        longer = jnp.pad(x[:, part], ((0, 0), (0, 2), (0, 0)))
        marks = jnp.pad(resets[:, part], ((0, 0), (0, 2)))
        lengths = jnp.full(B, part.stop - part.start)
        y, window = layer(longer, window, lengths=lengths, resets=marks, reverse=reverse)
        found[part.start] = y[:, : part.stop - part.start]
    np.testing.assert_allclose(jnp.concatenate([found[0], found[4]], axis=1), whole, rtol=1e-6)
    np.testing.assert_array_equal(window, last)
