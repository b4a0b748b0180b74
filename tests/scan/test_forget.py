"""The recurrence of a forget gate against recorded values and gradients."""

from pathlib import Path

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from lru.scan import LINEAR_METHODS, forget_mult

RECORDED = np.load(Path(__file__).parents[1] / "fixtures" / "qrnn_reference.npz")
CASES = ("basic", "h0", "b1", "t1", "nonpow2")


def recorded(case, *names):
    """Recorded arrays, batch first."""
    arrays = [RECORDED[f"fm/{case}/{name}"] for name in names]
    return [jnp.asarray(a if a.ndim == 2 else a.swapaxes(0, 1)) for a in arrays]


# All methods in one case, as scans keep their own law.
@pytest.mark.parametrize(
    ("case", "method"),
    [*((case, "auto") for case in CASES), *(("h0", method) for method in LINEAR_METHODS)],
)
def test_equals_the_recorded_values_and_gradients(case, method):
    names = ["f", "x", "h0"] if f"fm/{case}/h0" in RECORDED else ["f", "x"]
    out, cotangent = recorded(case, "out", "cot")

    @jax.jit
    def run(arrays):
        h, pull = jax.vjp(lambda *arrays: forget_mult(*arrays, method=method)[0], *arrays)
        return h, pull(cotangent)

    h, gradients = run(recorded(case, *names))
    np.testing.assert_allclose(h, out, rtol=0, atol=2e-6)
    for gradient, expected in zip(
        gradients, recorded(case, *(f"g{n}" for n in names)), strict=True
    ):
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=2e-5)


def test_options_are_those_of_the_scan():
    f, x = recorded("basic", "f", "x")
    lengths = jnp.array([7, 4, 1])
    resets = jnp.zeros(f.shape[:2], bool).at[:, 3].set(True)
    h, last = forget_mult(f, x, lengths=lengths, resets=resets)
    np.testing.assert_allclose(h[:, 3], (f * x)[:, 3] * np.array([1, 1, 0])[:, None], rtol=1e-6)
    np.testing.assert_array_equal(last[2], h[2, 0])
    start = jnp.ones_like(f[:, 0])
    fresh, _ = forget_mult(f, x, start, lengths=lengths, resets=resets, reset_to=start)
    restarted, _ = forget_mult(f[:, 3:], x[:, 3:], start)
    np.testing.assert_allclose(fresh[0, 3:], restarted[0], rtol=1e-6)
    backwards, _ = forget_mult(f[:, ::-1], x[:, ::-1], reverse=True)
    np.testing.assert_allclose(backwards[:, ::-1], forget_mult(f, x)[0], rtol=1e-6)


def test_small_shares_of_half_precision_are_not_lost():
    f = jnp.full((1, 64, 1), 0.001, jnp.bfloat16)
    h, _ = forget_mult(f, jnp.ones_like(f))
    assert h.dtype == jnp.float32
    np.testing.assert_allclose(
        h[0, :, 0], 1 - (1 - float(f[0, 0, 0])) ** np.arange(1, 65), rtol=1e-4
    )


def test_padding_that_is_not_a_number_does_not_reach_the_gradients():
    f, x = recorded("basic", "f", "x")
    lengths = jnp.array([7, 4, 1])
    padding = jnp.arange(f.shape[1])[:, None] >= lengths[:, None, None]

    def total(f, x):
        return forget_mult(f, x, lengths=lengths)[0].sum()

    expected = jax.grad(total, (0, 1))(f, x)
    holes = [jnp.where(padding, jnp.nan, array) for array in (f, x)]
    for found, gradient in zip(jax.grad(total, (0, 1))(*holes), expected, strict=True):
        np.testing.assert_array_equal(found, gradient)


def test_shares_of_another_shape_are_refused(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=r"f has shape \(2, 3, 1\), but x \(2, 3, 4\) allows"):
        forget_mult(jnp.ones((2, 3, 1)), jnp.ones((2, 3, 4)))
