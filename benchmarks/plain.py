"""Scans and diagonal layers as public code writes them, for benchmarks."""

from typing import Any

import jax
import jax.numpy as jnp

from lru.layers import LRU, DiagonalRNN


def associative_scan(a: jax.Array, b: jax.Array) -> jax.Array:
    """States [B, T, N] of an elementwise scan: a repeated over time, numbers as they are."""
    repeated = jnp.broadcast_to(a, b.shape)
    return jax.lax.associative_scan(_in_turn, (repeated, b), axis=1)[1]


def _in_turn(first: tuple, second: tuple) -> tuple:
    return second[0] * first[0], second[0] * first[1] + second[1]


class PlainRecurrence:
    """The diagonal recurrence written with complex arrays and `jax.lax.associative_scan`."""

    def __call__(self: Any, x: jax.Array, state: Any = None, **_: Any) -> tuple[jax.Array, Any]:
        """Run over x [B, T, D] from a zero state."""
        n = self.d_hidden
        B = self.B[...][:, :n].T + 1j * self.B[...][:, n:].T
        C = self.C[...][:n].T - 1j * self.C[...][n:].T
        if self.gamma_log is not None:
            B = B * jnp.exp(self.gamma_log[...])[:, None]
        eigenvalues = self.eigenvalues()[""]

        def one(x: jax.Array) -> jax.Array:
            repeated = jnp.repeat(eigenvalues[None], x.shape[0], axis=0)
            driven = jax.vmap(lambda x_t: B @ x_t)(x)
            h = jax.lax.associative_scan(_in_turn, (repeated, driven))[1]
            return jax.vmap(lambda h_t, x_t: (C @ h_t).real + self.D[...] * x_t)(h, x)

        return jax.vmap(one)(x), state


class PlainLRU(PlainRecurrence, LRU):
    """The LRU in plain form."""


class PlainDiagonalRNN(PlainRecurrence, DiagonalRNN):
    """The diagonal RNN in plain form."""
