"""States as vectors and back."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lru.analysis import flatten_states
from lru.layers import LAYERS, make_layer


class Kept(NamedTuple):
    h: jax.Array
    window: jax.Array | None
    steps: jax.Array


def test_parts_lie_side_by_side_and_come_back_in_their_types():
    h = jnp.array([[1 + 2j, 3 + 4j], [5 + 6j, 7 + 8j]], "complex64")
    window = jnp.arange(8, dtype="bfloat16").reshape(2, 2, 2)
    state = [Kept(h, None, jnp.array([9, 8])), {"window": window}, None]
    vectors, unflatten = flatten_states(state)
    assert vectors.dtype == "float32"
    np.testing.assert_array_equal(
        vectors, [[1, 3, 2, 4, 9, 0, 1, 2, 3], [5, 7, 6, 8, 8, 4, 5, 6, 7]]
    )
    back = unflatten(vectors)
    assert jax.tree.structure(back) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, back, state)
    assert [a.dtype for a in jax.tree.leaves(back)] == [a.dtype for a in jax.tree.leaves(state)]
    # Not at the whole number, but near it.
    assert unflatten(vectors + 0.4)[0].steps.tolist() == [9, 8]
    more = unflatten(jnp.stack([vectors, vectors, vectors]))
    assert more[1]["window"].shape == (3, 2, 2, 2)


@pytest.mark.parametrize("name", LAYERS)
def test_the_state_of_every_layer_of_64_bits_is_there_and_back(name):
    with jax.enable_x64(True):
        layer = make_layer(name, 3, 4, {}, rngs=nnx.Rngs(0))
        nnx.update(layer, jax.tree.map(lambda leaf: leaf.astype("float64"), nnx.state(layer)))
        state = jax.tree.map(lambda leaf: leaf + 1 / 3, layer.initial_state(2))
        vectors, unflatten = flatten_states(state)
        assert vectors.dtype == "float64"
        jax.tree.map(np.testing.assert_array_equal, unflatten(vectors), state)


def test_gradients_pass_in_both_directions():
    state = (jnp.array([[1 + 2j]], "complex64"), jnp.array([[3.0, 4.0]]))

    @jax.jit
    @jax.grad
    def loss(vectors):
        h, x = flatten_states(state)[1](vectors)
        return jnp.sum(jnp.abs(h) ** 2) + jnp.sum(flatten_states(x)[0] ** 2)

    np.testing.assert_allclose(loss(flatten_states(state)[0]), [[2, 4, 6, 8]], rtol=1e-6)


@pytest.mark.parametrize(
    ("state", "got"),
    [
        ((None, []), "got none"),
        (jnp.zeros(()), r"got shapes \(\)"),
        ([jnp.zeros((2, 3)), jnp.zeros((4, 3))], r"got shapes \(2, 3\), \(4, 3\)"),
        ([jnp.zeros((2, 3)), jnp.zeros(())], r"got shapes \(2, 3\), \(\)"),
    ],
)
def test_what_has_no_rows_is_refused(state, got):
    with pytest.raises(ValueError, match=rf"arrays \[B, ...\] with the same number of rows.*{got}"):
        flatten_states(state)


def test_vectors_of_another_width_are_refused():
    with pytest.raises(ValueError, match=r"shape \(2, 5\), but \[\.\.\., M = 3\] is allowed"):
        flatten_states(jnp.zeros((2, 3)))[1](jnp.zeros((2, 5)))
