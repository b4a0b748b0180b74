"""Recurrences with a matrix as their state against recorded ones, for several lengths of chunks."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lru.layers import MLSTM
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


def test_mlstm_layer():
    (case,) = cases.names("mlstm_layer")
    layer = MLSTM(6, 16, n_heads=2, chunk_length=4, rngs=nnx.Rngs(0))
    graphdef, _ = nnx.split(layer)

    def run(leaves):
        gates = [leaves[f"mlstm_cell.{gate}.weight"] for gate in ("igate", "fgate")]
        biases = [leaves[f"mlstm_cell.{gate}.bias"] for gate in ("igate", "fgate")]
        values = {
            "W_up": leaves["proj_up.weight"].T,
            **{f"W_{name}": leaves[f"{name}_proj.weight"].mT for name in "qkv"},
            "W_gates": jnp.concatenate(gates).T,
            "b_gates": jnp.concatenate(biases),
            "convolution": {
                "kernel": jnp.flip(leaves["conv1d.conv.weight"][:, 0], 1).T,
                "bias": leaves["conv1d.conv.bias"],
            },
            "norm": leaves["mlstm_cell.outnorm.weight"],
            "skip": leaves["learnable_skip"],
            "W_down": leaves["proj_down.weight"].T,
        }
        return nnx.merge(graphdef, nnx.State(values))(leaves["x"])[0], None

    cases.check(case, run)
