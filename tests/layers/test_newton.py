"""Layers by Newton's method: what they report, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lru.layers import GRU, LSTM, Elman
from lru.layers.newton import NewtonReport

B, T, D, N = 2, 30, 3, 4
TOLERANCE = 1e-5


def pair(kind, gain=1.0, **options):
    """The layer by Newton's method and the same step by step, and inputs."""
    layers = [
        kind(D, N, time_method=method, **options, rngs=nnx.Rngs(0))
        for method in ("newton", "sequential")
    ]
    for layer in layers:
        layer.weight_hh[...] *= gain
    return *layers, jax.random.normal(jax.random.key(0), (B, T, D))


def reported(layer):
    """Iterations and residual of the last call, and failures so far."""
    assert layer.solver is not None
    return layer.solver[...]


def test_a_call_reports_and_so_does_observe():
    layer, plain, x = pair(LSTM)
    for calls in (1, 2):
        y, _ = layer(x)
        iterations, residual, failures = reported(layer)
        assert (1 <= iterations <= 10, residual <= TOLERANCE, failures) == (True, True, 0), calls
    np.testing.assert_allclose(y, plain(x)[0], rtol=0, atol=TOLERANCE)
    found = layer.observe(x)
    assert found.keys() - plain.observe(x).keys() == {"residual"}
    assert jnp.max(found["residual"]) == residual


def test_a_failure_is_counted_and_changes_nothing():
    layer, plain, x = pair(Elman, gain=20.0, newton_iterations=2)
    for calls in (1, 2):
        y, _ = layer(x)
        assert reported(layer)[2] == calls
    assert reported(layer)[1] > 0.1
    np.testing.assert_array_equal(jnp.max(layer.observe(x)["residual"]), reported(layer)[1])
    np.testing.assert_allclose(y, plain(x)[0], rtol=0, atol=TOLERANCE)


def test_without_a_place_for_the_report_a_call_is_the_same():
    layer, _, x = pair(GRU)
    np.testing.assert_allclose(jax.jit(lambda x: layer(x)[0])(x), layer(x)[0], atol=1e-6)


def test_the_report_is_no_parameter_and_is_not_there_by_default():
    layer, plain, _ = pair(GRU)
    assert plain.solver is None
    assert isinstance(layer.solver, NewtonReport)
    assert nnx.state(layer, nnx.Param).keys() == nnx.state(plain, nnx.Param).keys()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("time_method", "newtom", "one of auto, sequential, newton, quasi_newton, got 'newtom'"),
        ("newton_iterations", 0, "at least 1, got 0"),
        ("newton_damping", 1.5, "from 0 to 1, got 1.5"),
    ],
)
def test_a_value_out_of_range_is_refused(option, value, message):
    with pytest.raises(ValueError, match=f"^{option} must be {message}"):
        GRU(D, N, **{option: value}, rngs=nnx.Rngs(0))
