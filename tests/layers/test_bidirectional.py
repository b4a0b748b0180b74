"""Both directions: rows reversed within their lengths, two layers summed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lru.layers import LRU, Bidirectional

B, T, D, N = 3, 9, 4, 5
CUT = 4


@pytest.fixture
def layer():
    return Bidirectional(lambda rngs: LRU(D, N, rngs=rngs), rngs=nnx.Rngs(0))


@pytest.fixture
def x():
    return jax.random.normal(jax.random.key(0), (B, T, D))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("given", "meant"), [(T + 3, T), (-2, 0)])
def test_lengths_beyond_the_row_are_refused_or_clipped_where_they_are_not_known(
    layer, x, given, meant, packed
):
    lengths = jnp.array([T, CUT, 1])
    resets = jnp.zeros((B, T), bool).at[:, CUT].set(True).at[:, 0].set(True)
    others = {"resets": resets} if packed else {}
    state = layer(x)[1] if packed else None
    with pytest.raises(ValueError, match=f"lengths must be from 0 to T = {T}, got {given}"):
        layer(x, state, lengths=lengths.at[0].set(given), **others)
    run = nnx.jit(lambda layer, lengths: layer(x, state, lengths=lengths, **others))
    y, last = run(layer, lengths.at[0].set(given))
    expected = run(layer, lengths.at[0].set(meant))
    jax.tree.map(np.testing.assert_array_equal, (y, last), expected)


def test_is_the_sum_of_both_layers_each_in_its_direction(layer, x):
    y, (forward_state, backward_state) = layer(x)
    y_forward, expected_forward = layer.forward(x)
    y_backward, expected_backward = layer.backward(x[:, ::-1])
    np.testing.assert_allclose(y, y_forward + y_backward[:, ::-1], atol=1e-6)
    np.testing.assert_array_equal(forward_state, expected_forward)
    np.testing.assert_array_equal(backward_state, expected_backward)


def test_documents_packed_into_padded_rows_stay_apart(layer, x):
    lengths = jnp.array([T, T - 2, CUT])
    # The mark at the last step of row 2 lies in its padding and must count for nothing.
    resets = jnp.zeros((B, T), bool).at[:2, CUT].set(True).at[2, CUT].set(True)
    packed, _ = layer(x, lengths=lengths, resets=resets)
    for row, length in enumerate(lengths):
        np.testing.assert_allclose(
            packed[row, :CUT], layer(x[row : row + 1, :CUT])[0][0], atol=1e-5
        )
        if length > CUT:
            np.testing.assert_allclose(
                packed[row, CUT:length], layer(x[row : row + 1, CUT:length])[0][0], atol=1e-5
            )


def test_spectra_are_named_by_direction(layer):
    spectra = layer.eigenvalues()
    assert list(spectra) == ["forward", "backward"]
    np.testing.assert_array_equal(spectra["backward"], layer.backward.eigenvalues()[""])


def test_the_layers_are_drawn_apart(layer):
    assert not np.array_equal(layer.forward.B[...], layer.backward.B[...])


def test_a_state_of_one_direction_is_refused(layer, x):
    state = layer.initial_state(B)
    with pytest.raises(
        ValueError, match=r"state has shape \(\(3, 5\), \(3, 2\)\).*\(\(3, 5\), \(3, 5\)\)"
    ):
        layer(x, (state[0], state[1][:, :2]))
