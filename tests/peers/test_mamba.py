"""Selective state spaces against recorded ones: the scans by every method, and the layers."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from lru.layers import Mamba, Mamba2
from lru.scan import selective_scan, ssd_scan
from tests.peers import cases


@pytest.mark.parametrize("method", ["sequential", "associative", "native"])
@pytest.mark.parametrize("case", cases.names("mamba_scan"))
def test_selective_scan(case, method):
    def weights(x, u):
        """[B, N, T], in groups [B, G, N, T], or for each channel [D, N]: as [B, T, G, N]."""
        if x.ndim == 2:
            return jnp.broadcast_to(x, (u.shape[0], u.shape[2], *x.shape))
        return jnp.moveaxis(x[:, None] if x.ndim == 3 else x, -1, 1)

    def run(leaves):
        u, delta = (jnp.swapaxes(leaves[name], 1, 2) for name in ("u", "delta"))
        dt = jax.nn.softplus(delta + leaves["delta_bias"])
        B, C = (weights(leaves[name], leaves["u"]) for name in ("Bm", "Cm"))
        y, h = selective_scan(u, dt, leaves["A"].T, B, C, chunk_length=4, method=method)
        y = jnp.swapaxes(y + leaves["Dv"] * u, 1, 2)
        return y * jax.nn.silu(leaves["z"]) if "z" in leaves else y, h.mT

    cases.check(case, run)


@pytest.mark.parametrize("chunk_length", [0, 1, 5])
@pytest.mark.parametrize("case", cases.names("ssd"))
def test_ssd_scan(case, chunk_length):
    def run(leaves):
        x, log_decay, B, C = (leaves[name] for name in ("X", "A", "Bm", "Cm"))
        S0 = leaves["S0"][:, 0].mT
        y, S = ssd_scan(x, log_decay, B, C, S0, chunk_length=chunk_length)
        return y, S.mT

    cases.check(case, run)


def loaded(layer, leaves, names):
    """The layer with recorded parameters: attributes by the names there, and what is common."""
    names = names | {"A_log": "A_log", "D": "D", "W_in": "in_proj.weight"}
    for name, theirs in (names | {"W_out": "out_proj.weight"}).items():
        value = leaves[theirs]
        getattr(layer, name).set_value(value.T if value.ndim == 2 else value)
    layer.convolution.kernel.set_value(jnp.flip(leaves["conv1d.weight"][:, 0], 1).T)
    layer.convolution.bias.set_value(leaves["conv1d.bias"])
    return layer


@pytest.mark.parametrize("chunk_length", [0, 4])
@pytest.mark.parametrize("case", cases.names("mamba_block"))
def test_mamba(case, chunk_length):
    sizes = cases.options(case)

    def run(leaves):
        layer = Mamba(
            sizes["d_model"],
            sizes["expand"] * sizes["d_model"],
            d_state=sizes["d_state"],
            dt_rank=sizes["dt_rank"],
            window=sizes["d_conv"],
            chunk_length=chunk_length,
            rngs=nnx.Rngs(0),
        )
        names = {"W_x": "x_proj.weight", "W_dt": "dt_proj.weight", "dt_bias": "dt_proj.bias"}
        y, state = loaded(layer, leaves, names)(leaves["x"])
        return y, state.h.mT

    cases.check(case, run, h_last="aux_ssm_state")


@pytest.mark.parametrize("chunk_length", [0, 5])
@pytest.mark.parametrize("case", cases.names("mamba2_block"))
def test_mamba2(case, chunk_length):
    sizes = cases.options(case)

    def run(leaves):
        channels = leaves["norm.weight"].shape[0]
        layer = Mamba2(
            sizes["d_model"],
            channels,
            d_state=sizes["d_state"],
            n_heads=channels // sizes["headdim"],
            n_groups=sizes["ngroups"],
            learned_start=sizes["learnable_init_states"],
            chunk_length=chunk_length,
            rngs=nnx.Rngs(0),
        )
        layer = loaded(layer, leaves, {"dt_bias": "dt_bias", "scale": "norm.weight"})
        if layer.start is not None:
            layer.start.set_value(leaves["init_states"].mT)
        return layer(leaves["x"])[0], None

    cases.check(case, run)
