"""Selective state spaces against recorded ones: the scans by every method, and the layers."""

import jax
import jax.numpy as jnp
import pytest

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
