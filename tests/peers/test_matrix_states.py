"""Recurrences with a matrix as their state against recorded ones, for several lengths of chunks."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lru.scan import delta_scan, mlstm_scan
from tests.peers import cases

each_chunk_length = pytest.mark.parametrize("chunk_length", [0, 1, 4])


def heads_last(leaves):
    """[B, H, T, ...] as [B, T, H, ...]."""
    return [jnp.swapaxes(x, 1, 2) for x in leaves]


@each_chunk_length
@pytest.mark.parametrize("case", cases.names("delta_rule"))
def test_delta_rule(case, chunk_length):
    def run(leaves):
        q, k, v, beta = heads_last([leaves[name] for name in ("q", "k", "v", "beta")])
        o, S = delta_scan(q, k, v, beta, leaves.get("S0"), chunk_length=chunk_length)
        return jnp.swapaxes(o, 1, 2), S

    cases.check(case, run)


@each_chunk_length
@pytest.mark.parametrize("case", cases.names("gated_delta_rule"))
def test_gated_delta_rule(case, chunk_length):
    def run(leaves):
        q, k, v, beta, S0 = (leaves[name] for name in ("q", "k", "v", "beta", "S0"))
        return delta_scan(q, k, v, beta, S0, log_decay=leaves["g"], chunk_length=chunk_length)

    cases.check(case, run)


@each_chunk_length
@pytest.mark.parametrize("case", cases.names("mlstm_cell"))
def test_mlstm(case, chunk_length):
    def scanned(leaves):
        q, k, v, i, f = heads_last([leaves[name] for name in "qkvif"])
        start = None
        if "C0" in leaves:
            start = (leaves["C0"], leaves["n0"][..., 0], leaves["m0"][..., 0, 0])
        h, state = mlstm_scan(q, k, v, i[..., 0], f[..., 0], start, chunk_length=chunk_length)
        return jnp.swapaxes(h, 1, 2), state

    cases.check(case, lambda leaves: (scanned(leaves)[0], None))
    with jax.enable_x64(True):
        found = cases.arrays(case)
        expected = found["aux_C"], found["aux_n"][..., 0], found["aux_m"][..., 0, 0]
        close = partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-10)
        jax.tree.map(close, jax.jit(scanned)(found)[1], expected)
