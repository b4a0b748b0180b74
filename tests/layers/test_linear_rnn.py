"""The dense recurrence."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lru.layers import LinearRNN, RecurrentParam


def test_equals_the_equations_written_out():
    layer = LinearRNN(3, 4, rngs=nnx.Rngs(0))
    x = np.asarray(jax.random.normal(jax.random.key(0), (1, 6, 3)))
    A, B, C, D = (np.asarray(getattr(layer, name)[...]) for name in "ABCD")
    h, rows = np.zeros(4), []
    for x_t in x[0]:
        h = A @ h + x_t @ B
        rows.append(h @ C + D * x_t)
    np.testing.assert_allclose(layer(jnp.asarray(x))[0][0], rows, atol=1e-5)


def test_eigenvalues_are_those_of_the_matrix():
    layer = LinearRNN(3, 6, A_init="glorot", rngs=nnx.Rngs(0))
    expected = np.linalg.eigvals(np.asarray(layer.A[...], np.float64))
    found = np.asarray(layer.eigenvalues()[""])
    np.testing.assert_allclose(np.sort_complex(found), np.sort_complex(expected), atol=1e-5)


def test_eigenvalues_of_several_seeds_at_once():
    def spectrum(key):
        return LinearRNN(3, 6, rngs=nnx.Rngs(key)).eigenvalues()[""]

    keys = jax.random.split(jax.random.key(0), 3)
    one_by_one = np.stack([spectrum(key) for key in keys])
    np.testing.assert_allclose(jax.vmap(spectrum)(keys), one_by_one, atol=1e-5)


def test_eigenvalues_have_the_precision_of_the_matrix():
    with jax.enable_x64(True):
        layer = LinearRNN(3, 6, rngs=nnx.Rngs(0))
        layer.A.set_value(layer.A[...].astype(jnp.float64))
        assert layer.eigenvalues()[""].dtype == jnp.complex128


def test_recurrent_parameters_are_marked_by_type():
    assert set(nnx.state(LinearRNN(3, 4, rngs=nnx.Rngs(0)), RecurrentParam)) == {"A", "B"}
