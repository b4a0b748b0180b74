"""The sLSTM against recorded ones, its cell and the whole layer."""

import jax.numpy as jnp
import pytest
from flax import nnx

from lru.layers import SLSTM
from lru.layers.slstm import CELL, dense
from lru.scan import gated_scan
from tests.peers import cases


def recurrent(kernel):
    """Recorded [H, 4 P, P] as our [H, P, 4, P]."""
    heads, _, width = kernel.shape
    return jnp.transpose(kernel.reshape(heads, 4, width, width), (0, 3, 1, 2))


@pytest.mark.parametrize("case", cases.names("slstm_cell"))
def test_cell(case):
    def run(leaves):
        x = leaves["x"] + leaves["_bias_"]
        start = tuple(leaves.get("S0", jnp.zeros((4, 2, 6), x.dtype)))
        h, last = gated_scan(CELL, x, dense(recurrent(leaves["_recurrent_kernel_"])), start)
        return jnp.moveaxis(h.reshape(2, -1, 2, 3), 2, 1), jnp.stack(last)

    cases.check(case, run)


def test_layer():
    (case,) = cases.names("slstm_layer")
    graphdef, _ = nnx.split(SLSTM(6, 6, n_heads=2, rngs=nnx.Rngs(0)))

    def run(leaves):
        # There the module named after a gate feeds the other one of these two.
        modules = {"W_i": "fgate", "W_f": "igate", "W_z": "zgate", "W_o": "ogate"}
        values = {
            **{ours: leaves[f"{theirs}.weight"].mT for ours, theirs in modules.items()},
            "R": recurrent(leaves["slstm_cell._recurrent_kernel_"]),
            "bias": leaves["slstm_cell._bias_"].reshape(4, 6),
            "convolution": {
                "kernel": jnp.flip(leaves["conv1d.conv.weight"][:, 0], 1).T,
                "bias": leaves["conv1d.conv.bias"],
            },
            "norm": leaves["group_norm.weight"],
        }
        y, state = nnx.merge(graphdef, nnx.State(values))(leaves["x"])
        return y, jnp.stack(state[:4])

    cases.check(case, run, h_last="aux_state")
