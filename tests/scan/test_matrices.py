"""The scans of matrix states: equal to the oracle however steps are cut, and at bad padding."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lru.scan import delta_scan, mlstm_scan, reference
from lru.scan.methods import marked_steps

B, T, H, P, Q = 3, 11, 2, 4, 3
LENGTHS = np.array([T, 6, 0])
VALID = np.arange(T) < LENGTHS[:, None]


def drawn(*shapes):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape) for shape in shapes]


def problem(name):
    """A scan, its oracle, inputs at every step, and states before the first and after resets."""
    q, k, v, i, f, *states = drawn(
        *[(B, T, H, P)] * 2, (B, T, H, Q), *[(B, T, H)] * 2, *[(B, H, P, Q), (B, H, P), (B, H)] * 2
    )
    if name == "mlstm":
        return mlstm_scan, reference.mlstm_scan, (q, k, v, i, f), states[:3], states[3:]
    beta = 1 / (1 + np.exp(-i))
    scan, oracle = delta_scan, reference.delta_scan
    if name == "gated delta":

        def with_decay(scan):
            return lambda q, k, v, beta, decay, S, **options: scan(
                q, k, v, beta, S, log_decay=decay, **options
            )

        scan, oracle = with_decay(scan), with_decay(oracle)
    decay = [-np.exp(f)] if name == "gated delta" else []
    return scan, oracle, (q, k / 2, v, beta, *decay), states[0], states[3]


@pytest.mark.parametrize("chunk_length", [0, 1, 4])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("name", ["delta", "gated delta", "mlstm"])
def test_equals_the_oracle(name, fresh, reverse, chunk_length):
    with jax.enable_x64(True):
        scan, oracle, arrays, start, afresh = problem(name)
        resets = np.zeros((B, T), bool)
        # Two in a chunk, one at its start, and one at padding.
        resets[0, [1, 3, 8]] = resets[1, [2, 7]] = True

        @partial(jax.jit, static_argnums=0)
        def run(scan, arrays, start, afresh):
            def loss(arrays, start, afresh):
                arrays = tuple(
                    jnp.where(VALID.reshape(B, T, *[1] * (x.ndim - 2)), x, jnp.nan) for x in arrays
                )
                options = {"reset_to": afresh} if fresh else {}
                y, last = scan(
                    *(*arrays, start),
                    reverse=reverse,
                    resets=jnp.asarray(resets),
                    lengths=jnp.asarray(LENGTHS),
                    **options,
                )
                ends = sum(jnp.sum(x**2) for x in jax.tree.leaves(last))
                return jnp.sum(jnp.sin(y)) + ends, (y, last)

            return jax.grad(loss, (0, 1, 2), has_aux=True)(arrays, start, afresh)

        arguments = jax.tree.map(jnp.asarray, (arrays, start, afresh))
        if name == "mlstm":
            arguments = (arguments[0], tuple(arguments[1]), tuple(arguments[2]))
        found = run(partial(scan, chunk_length=chunk_length), *arguments)
        expected = run(oracle, *arguments)
        assert not np.any(found[1][0][~VALID])
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-10), found, expected)


@pytest.mark.parametrize("scan", [delta_scan, mlstm_scan])
def test_a_chunk_of_less_than_no_steps_is_refused(scan):
    q, v, i = map(jnp.asarray, drawn((B, T, H, P), (B, T, H, Q), (B, T, H)))
    gates = (i,) if scan is delta_scan else (i, i)
    with pytest.raises(ValueError, match=r"^chunk_length must be at least 0, got -1$"):
        scan(q, q, v, *gates, chunk_length=-1)


def test_resets_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"resets is bool \(11,\), but x \(3, 11, 2\) allows"):
        marked_steps(jnp.ones((B, T, H)), jnp.zeros(T, bool), None)
