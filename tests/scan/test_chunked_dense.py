"""Dense scans in chunks of time: when powers of A are used, and that they never spoil a result."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lru.scan import dense_scan, reference, sequential

B, T, N = 2, 256, 6


def orthogonal(seed: int = 0) -> jax.Array:
    return jnp.linalg.qr(jax.random.normal(jax.random.key(seed), (N, N)))[0]


def inputs(seed: int = 1) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), (B, T, N))


@pytest.mark.usefixtures("_traced_anew")
@pytest.mark.parametrize(
    ("A", "plain"),
    [
        (orthogonal(), False),
        (1.1 * orthogonal(), False),
        (1.5 * orthogonal(), True),
        (1e10 * orthogonal(), True),
        # Its powers above the first are zero: each of them counts, not the last alone.
        (jnp.zeros((N, N)).at[0, 1].set(1000), True),
        (jnp.full((N, N), jnp.nan), True),
    ],
    ids=["constant", "growing", "exploding", "overflowing", "transient", "nan"],
)
def test_the_plain_loop_runs_where_a_power_is_large(A, plain, monkeypatch) -> None:
    solve = sequential.solve_dense

    def marked(A, b, *rest):
        return jnp.full_like(b, 7) if b.shape[1] == T else solve(A, b, *rest)

    monkeypatch.setattr(sequential, "solve_dense", marked)
    h, _ = dense_scan(A, jnp.ones((B, T, N)), method="chunked")
    assert jnp.all(h == 7) == plain


@pytest.mark.parametrize("reverse", [False, True])
def test_powers_that_overflow_leave_finite_states_and_gradients(reverse: bool) -> None:
    A = 1000 * orthogonal()
    start, end = ((jnp.arange(T) < 5)[:, None], (jnp.arange(T) >= T - 5)[:, None])
    first, last = (end, start) if reverse else (start, end)
    b, g = jnp.where(last, inputs(), 0), jnp.where(first, inputs(2), 0)

    def run(scan, **options) -> tuple:
        h, pull = jax.vjp(lambda A, b: scan(A, b, reverse=reverse, **options)[0], A, b)
        return h, *pull(g)

    expected = jax.jit(lambda: run(reference.dense_scan))()
    assert all(jnp.all(jnp.isfinite(x)) for x in expected)
    for x, y in zip(jax.jit(lambda: run(dense_scan, method="chunked"))(), expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5)


@pytest.mark.parametrize("scale", [1.1, 1.0, 0.5])
def test_rounding_adds_up_to_no_more_than_one_unit_a_step(scale: float) -> None:
    """Errors against float64, relative to the largest state of each step."""
    A, b = scale * orthogonal(), inputs()
    with jax.enable_x64(True):
        exact = np.asarray(reference.dense_scan(A.astype("float64"), b.astype("float64"))[0])
    h = np.asarray(dense_scan(A, b, method="chunked")[0], "float64")
    errors = np.abs(h - exact).max((0, 2)) / np.abs(exact).max((0, 2))
    assert np.all(errors < (1 + np.arange(T)) * np.finfo("float32").eps)
