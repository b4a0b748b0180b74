"""Nonlinear scans: by every method equal to the oracle, what diverges included, and at padding."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lru.layers import GRU, LSTM, Elman
from lru.scan import GatedRecurrence, nonlinear_scan, portable, reference

B, T, N = 3, 21, 4
METHODS = ("sequential", "newton", "quasi_newton")
OPTIONS = ("method", "reverse", "limit", "damping")
LENGTHS = np.array([T, 9, 0])


def drawn(layer, gain=1.0):
    """Recurrence, matrix, inputs, state and fresh state of a layer."""
    rng = np.random.default_rng(0)
    columns = layer.n_gates * N
    W = gain * rng.standard_normal((N, columns)) / N**0.5
    x = rng.standard_normal((B, T, columns + layer.apart * N))
    states = rng.standard_normal((2, B, len(layer.state_type._fields), N))
    return GatedRecurrence(layer.cell), W, x, *states


def results_of(scan, recurrence, *arrays, **options):
    """States, the last one, and all gradients; what else there is."""

    def loss(W, x, state, fresh):
        states, last, *report = scan(recurrence, W, x, state, reset_to=fresh, **options)
        return jnp.sum(jnp.sin(states)) + jnp.sum(last**2), (states, last, report)

    gradients, (*values, report) = jax.grad(loss, (0, 1, 2, 3), has_aux=True)(*arrays)
    return (values, gradients), report


run = jax.jit(results_of, static_argnums=(0, 1), static_argnames=OPTIONS)


def close(actual, expected, tolerance):
    leaves = ([*map(np.asarray, jax.tree.leaves(tree))] for tree in (actual, expected))
    for got, wanted in zip(*leaves, strict=True):
        assert got.dtype == wanted.dtype
        bound = tolerance * max(1, np.abs(wanted).max(initial=0))
        np.testing.assert_allclose(got, wanted, rtol=0, atol=bound)


@pytest.mark.parametrize(
    ("dtype", "reverse"), [("float32", False), ("float64", False), ("float64", True)]
)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("layer", [LSTM, GRU, Elman])
def test_equals_the_oracle(layer, method, dtype, reverse):
    """With resets and lengths."""
    marks = np.random.default_rng(1).random((B, T)) < 0.1
    options = {"resets": jnp.asarray(marks), "lengths": jnp.asarray(LENGTHS), "reverse": reverse}
    with jax.enable_x64(dtype == "float64"):
        recurrence, *arrays = drawn(layer)
        arrays = [jnp.asarray(array, dtype) for array in arrays]
        expected, _ = run(reference.nonlinear_scan, recurrence, *arrays, **options)
        actual, (report,) = run(nonlinear_scan, recurrence, *arrays, method=method, **options)
    close(actual, expected, 1e-5 if dtype == "float32" else 1e-12)
    assert report.converged
    assert (report.iterations > 0) == (method != "sequential")
    assert np.asarray(report.residual).max() <= 1e-5


@pytest.mark.parametrize("method", METHODS[1:])
def test_what_diverges_is_run_step_by_step_and_says_so(method):
    """Chaos, in which an error grows at every step; by the gradient too."""
    recurrence, *arrays = drawn(Elman, gain=20.0)
    arrays = [jnp.asarray(array, "float32") for array in arrays]
    expected, _ = run(reference.nonlinear_scan, recurrence, *arrays)
    actual, (report,) = run(nonlinear_scan, recurrence, *arrays, method=method, limit=2)
    close(actual, expected, 1e-4)
    assert not report.converged
    assert report.iterations == 2
    assert np.max(report.residual) > 1e-2


def test_damping_leaves_the_solution_as_it_is():
    recurrence, *arrays = drawn(GRU)
    arrays = [jnp.asarray(array, "float32") for array in arrays]
    (expected, (plain,)), (actual, (damped,)) = (
        run(nonlinear_scan, recurrence, *arrays, method="newton", damping=damping)
        for damping in (0.0, 0.5)
    )
    close(actual, expected, 1e-5)
    assert damped.converged
    assert damped.iterations > plain.iterations


@pytest.mark.parametrize("method", METHODS)
def test_padding_may_hold_anything(method):
    recurrence, W, x, state, fresh = drawn(GRU)
    mask = (np.arange(T) < LENGTHS[:, None])[..., None]
    options = {"method": method, "lengths": jnp.asarray(LENGTHS)}
    actual, expected = (
        run(nonlinear_scan, recurrence, *(np.float32(a) for a in (W, x, state, fresh)), **options)
        for x in (np.where(mask, x, np.nan), x)
    )
    jax.tree.map(np.testing.assert_array_equal, actual, expected)
    assert not np.any(np.where(mask, 0, actual[0][1][1]))


def test_lanes_converge_each_by_itself():
    recurrence, W, x, state, fresh = (
        a if isinstance(a, tuple) else jnp.asarray(a, "float32") for a in drawn(Elman)
    )
    gains = jnp.array([0.5, 20.0])

    @jax.jit
    def lanes(gains):
        each = partial(results_of, nonlinear_scan, recurrence, method="newton", limit=6)
        return jax.vmap(lambda gain: each(gain * W, x, state, fresh))(gains)

    actual, (report,) = lanes(gains)
    assert report.converged.tolist() == [True, False]
    for lane, gain in enumerate(gains):
        expected, _ = run(reference.nonlinear_scan, recurrence, gain * W, x, state, fresh)
        close(jax.tree.map(lambda leaf, lane=lane: leaf[lane], actual), expected, 1e-4)


def test_what_is_not_a_number_comes_out_as_that():
    recurrence, W, x, state, _ = drawn(GRU)
    x[0, 3] = np.nan
    options = {"method": "newton", "limit": 30}
    states, _, report = nonlinear_scan(
        recurrence, *(jnp.asarray(a, "float32") for a in (W, x, state)), **options
    )
    assert not report.converged
    assert np.isfinite(states[1:]).all()
    assert np.isnan(np.asarray(states[0])).any(axis=(1, 2)).tolist() == [False] * 3 + [True] * (
        T - 3
    )


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("method", METHODS)
def test_is_lowered_for_an_accelerator(method, platform, exported, monkeypatch):
    """With gradients, and the way back to single steps in the same program."""
    monkeypatch.setattr(jax, "default_backend", {"cuda": "gpu", "tpu": "tpu"}[platform].format)
    recurrence, *arrays = drawn(GRU)
    arrays = [jnp.asarray(array, "float32") for array in arrays]
    program = exported(
        platform, partial(results_of, nonlinear_scan, recurrence, method=method), *arrays
    )
    assert program.platforms == (platform,)
    # Forward and backward a loop over steps; of the others also one of iterations, and one around
    # the loop over steps.
    assert program.mlir_module().count("stablehlo.while") == (2 if method == "sequential" else 6)


def test_a_portable_program_runs_step_by_step():
    recurrence, *arrays = drawn(GRU)
    W, x, state, _ = (jnp.asarray(array, "float32") for array in arrays)
    rows, steps = jax.export.symbolic_shape("B, T")
    like = [
        jax.ShapeDtypeStruct((rows, steps, x.shape[2]), x.dtype),
        jax.ShapeDtypeStruct((rows, *state.shape[1:]), x.dtype),
    ]
    with portable():
        program = jax.export.export(
            jax.jit(lambda x, state: nonlinear_scan(recurrence, W, x, state, method="newton")[:2])
        )(*like)
    for got, wanted in zip(
        program.call(x, state), nonlinear_scan(recurrence, W, x, state)[:2], strict=True
    ):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)
