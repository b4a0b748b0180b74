"""Portable scans: the plain loop in place of every method, and only where they are asked for."""

import inspect

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from lru.registry import UnknownNameError
from lru.scan import (
    DENSE_METHODS,
    LINEAR_METHODS,
    dense_scan,
    is_portable,
    linear_scan,
    paired_scan,
    pooled_scan,
    portable,
    projected_scan,
)

B, T, N = 2, 5, 4
CALLS = [
    *((linear_scan, jnp.ones(N), name) for name in ("auto", *LINEAR_METHODS)),
    *((dense_scan, jnp.ones((N, N)), name) for name in ("auto", *DENSE_METHODS)),
]


def program(scan, matrix, method):
    return str(jax.make_jaxpr(lambda b: scan(matrix, b, method=method))(jnp.ones((B, T, N))))


@pytest.mark.parametrize(("scan", "matrix", "method"), CALLS)
def test_every_method_becomes_the_plain_loop(scan, matrix, method):
    with portable():
        inside = program(scan, matrix, method)
    assert inside == program(scan, matrix, "sequential")


def symbols(*columns):
    rows, steps = jax.export.symbolic_shape("B, T")
    return jax.ShapeDtypeStruct((rows, steps, *columns), jnp.float32)


@pytest.mark.parametrize(
    ("run", "x"),
    [
        (lambda x: linear_scan(jnp.ones(N), x), symbols(N)),
        (lambda x: dense_scan(jnp.eye(N), x), symbols(N)),
        (lambda x: paired_scan(jnp.ones(N), x), symbols(2, N)),
        (lambda x: pooled_scan(x, None, x[:, 0, :N], gates="fo"), symbols(3 * N)),
        (lambda x: projected_scan(jnp.ones(N), x, jnp.eye(2 * N), jnp.eye(2 * N)), symbols(2 * N)),
    ],
    ids=["linear", "dense", "paired", "pooled", "projected"],
)
def test_rows_and_steps_may_be_symbols(run, x):
    with portable():
        program = jax.export.export(jax.jit(run))(x)
    given = jnp.ones((B, T, *x.shape[2:]))
    for result, expected in zip(program.call(given), run(given), strict=True):
        np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_what_was_compiled_outside_is_not_used_inside():
    seen = []

    @jax.jit
    def solve(b):
        seen.append(is_portable())
        return linear_scan(jnp.ones(N), b, method="associative")[0]

    b = jnp.ones((B, T, N))
    solve(b)
    with portable():
        solve(b)
        solve(b)
    solve(b)
    assert seen == [False, True]


def test_an_unknown_method_is_refused_all_the_same():
    with portable(), pytest.raises(UnknownNameError, match=r"known: .*sequential"):
        inspect.unwrap(linear_scan)(jnp.ones(N), jnp.ones((B, T, N)), method="sequentail")
