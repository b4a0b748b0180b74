"""Portable scans: the plain loop in place of every method, and only where they are asked for."""

import inspect

import jax
import jax.numpy as jnp
import pytest

from lru.registry import UnknownNameError
from lru.scan import (
    DENSE_METHODS,
    LINEAR_METHODS,
    dense_scan,
    is_portable,
    linear_scan,
    portable,
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
