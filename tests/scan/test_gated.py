"""The scan of gated cells: in C++ and in JAX equal to the oracle, and at bad padding."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lru.layers import GRU, LSTM, Elman
from lru.scan import gated_scan, gated_steps, reference

B, T, N = 3, 6, 4
LENGTHS = jnp.array([T, 3, 0])


@pytest.mark.parametrize("layer", [LSTM, GRU, Elman])
def test_padding_may_hold_anything(layer):
    rng = np.random.default_rng(0)
    columns = layer.n_gates * N
    x = rng.standard_normal((B, T, columns + layer.apart * N), np.float32)
    W = rng.standard_normal((N, columns), np.float32)
    state = tuple(rng.standard_normal((B, N), np.float32) for _ in layer.state_type._fields)
    mask = np.arange(T) < np.asarray(LENGTHS)[:, None]

    @jax.jit
    @partial(jax.value_and_grad, argnums=(0, 1, 2), has_aux=True)
    def run(x, W, state):
        h, last = gated_scan(layer.cell, x, W, state, lengths=LENGTHS)
        return jnp.sum(h**2) + sum(jnp.sum(s**2) for s in last), h

    actual = run(np.where(mask[..., None], x, np.nan), W, state)
    jax.tree.map(np.testing.assert_array_equal, actual, run(x, W, state))
    (_, h), (dx, *_) = actual
    assert not np.any(h[~mask])
    assert not np.any(dx[~mask])


def drawn(layer, rows, steps, width, dtype):
    """Inputs, matrix and state of a problem."""
    rng = np.random.default_rng(0)
    columns = layer.n_gates * width
    shapes = [(rows, steps, columns + layer.apart * width), (width, columns)]
    shapes += [(rows, width)] * len(layer.state_type._fields)
    x, W, *state = (jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes)
    return x, W / width**0.5, tuple(state)


def masks_of(rows, steps):
    rng = np.random.default_rng(1)
    return {
        "resets": jnp.asarray(rng.random((rows, steps)) < 0.1),
        "lengths": jnp.asarray(rng.integers(1, steps + 1, rows)).at[-1].set(0),
    }


def results_of(scan, cell, *arrays, **options):
    def run(x, W, state):
        h, last = scan(cell, x, W, state, **options)
        return jnp.sum(jnp.sin(h)) + sum(jnp.sum(s**2) for s in last), (h, last)

    gradients, results = jax.grad(run, (0, 1, 2), has_aux=True)(*arrays)
    return results, gradients


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("layer", "rows", "steps", "width", "dtype"),
    [
        (LSTM, 9, 35, 13, "float32"),
        (GRU, 3, 20, 37, "float32"),
        (LSTM, 2, 70, 5, "float64"),
        (GRU, 5, 18, 3, "float64"),
        (Elman, 9, 70, 37, "float32"),
    ],
)
def test_equals_the_oracle_at_odd_sizes(layer, rows, steps, width, dtype, masked, reverse):
    """Rows beside whole tiles, widths beside whole vectors, pairs beside whole blocks."""
    options = {"reverse": reverse, **(masks_of(rows, steps) if masked else {})}
    with jax.enable_x64(dtype == "float64"):
        arrays = drawn(layer, rows, steps, width, dtype)
        run = jax.jit(results_of, static_argnums=(0, 1), static_argnames="reverse")
        expected = run(reference.gated_scan, layer.cell, *arrays, **options)
        for cell in (layer.cell, layer.cell._replace(native="")):
            actual = run(gated_scan, cell, *arrays, **options)
            for got, wanted in zip(*map(jax.tree.leaves, (actual, expected)), strict=True):
                assert got.dtype == wanted.dtype
                bound = 20 * float(jnp.finfo(dtype).eps) * np.abs(wanted).max()
                np.testing.assert_allclose(got, wanted, rtol=0, atol=bound)


@pytest.mark.parametrize("layer", [LSTM, GRU, Elman])
def test_lanes_and_second_derivatives_are_those_of_the_plain_loop(layer):
    x, W, state = drawn(layer, 3, 9, 5, "float32")
    lanes = [jnp.stack([array, 0.5 * array]) for array in (x, W)]

    @partial(jax.jit, static_argnums=0)
    def run(cell):
        def gradients(x, W):
            return results_of(gated_scan, cell, x, W, state, **masks_of(3, 9))[1][:2]

        joined = jax.vmap(gradients)(*lanes)
        return joined, jax.jvp(gradients, (x, W), (jnp.sin(x), jnp.cos(W)))[1]

    actual, expected = run(layer.cell), run(layer.cell._replace(native=""))
    for got, wanted in zip(*map(jax.tree.leaves, (actual, expected)), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("layer", [LSTM, GRU, Elman])
def test_states_and_activations_are_those_of_the_plain_loop(layer):
    arrays = drawn(layer, 5, 9, 7, "float32")
    options = masks_of(5, 9)
    valid = np.arange(9) < np.asarray(options["lengths"])[:, None]
    actual, expected = (
        gated_steps(cell, *arrays, **options)
        for cell in (layer.cell, layer.cell._replace(native=""))
    )
    for got, wanted in zip(*map(jax.tree.leaves, (actual, expected)), strict=True):
        np.testing.assert_allclose(got[valid], wanted[valid], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        {"compute_dtype": "bfloat16"},
        {"reset_to": True},
        {"dtype": "bfloat16"},
        {"native": ""},
        {"width": 257},
        {},
    ],
    ids=str,
)
def test_the_loop_in_c_takes_what_it_knows(change):
    """What it does not know runs all the same."""
    cell = LSTM.cell._replace(native=change.get("native", "lstm"))
    x, W, state = drawn(LSTM, 2, 3, change.get("width", 4), change.get("dtype", "float32"))
    fresh = state if "reset_to" in change else None
    options = {"compute_dtype": change.get("compute_dtype", "float32"), "reset_to": fresh}
    resets = jnp.zeros((2, 3), bool).at[:, 1].set(True)
    run = jax.jit(partial(gated_scan, cell, resets=resets, **options))
    assert ("lru_gated_forward" in run.lower(x, W, state).as_text()) == (not change)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(run(x, W, state)))
