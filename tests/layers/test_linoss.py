"""Oscillators whose matrices have no two different eigenvalues, and values out of range."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lru.layers import DLinOSS, LinOSS

D, N, T = 4, 6, 200


@pytest.mark.parametrize(
    ("kind", "options"),
    [(LinOSS, {}), (LinOSS, {"discretization": "imex"}), (DLinOSS, {})],
    ids=["im", "imex", "damped"],
)
def test_equal_eigenvalues_and_near_ones_are_as_exact_as_others(
    kind: Any, options: dict[str, str]
) -> None:
    """Stiffness around 0; of damped oscillators, around the bounds that it is clipped to."""
    graphdef, params = nnx.split(kind(D, N, **options, rngs=nnx.Rngs(0)))
    params["A"][...] = jnp.array([-1.0, 0.0, 1e-12, 1e-7, 1e-3, 3.0])
    if kind is DLinOSS:
        params["A"][5] = 99.0
        # Two have no damping: their lower bound is 0.
        params["G"][...] = jnp.array([0.1, 0.1, 1e-6, -1.0, 0.0, 0.1])

    def outputs(dtype: str) -> Any:
        x, weights = jax.random.normal(jax.random.key(0), (2, 2, T, D), "float32").astype(dtype)

        @jax.jit
        def gradients(params: Any) -> Any:
            def loss(params: Any) -> tuple[jax.Array, jax.Array]:
                y, _ = nnx.merge(graphdef, params)(x)
                return jnp.sum(y * weights), y

            return jax.grad(loss, has_aux=True)(params)

        return gradients(jax.tree.map(lambda leaf: leaf.astype(dtype), params))

    with jax.enable_x64(True):
        for found, exact in zip(
            *(jax.tree.leaves(outputs(f"float{b}")) for b in (32, 64)), strict=True
        ):
            assert np.all(np.isfinite(found))
            np.testing.assert_allclose(found, exact, rtol=0, atol=1e-4 * np.abs(exact).max())


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (LinOSS, {"A_max": 5.0, "discretization": "imex"}, "A_max must be above 0, and at most 4"),
        (LinOSS, {"discretization": "zoh"}, "discretization must be im or imex, got 'zoh'"),
        (DLinOSS, {"r_max": 1.5}, "r_min and r_max must satisfy"),
        (DLinOSS, {"r_min": 0.0}, "r_min must be above 0"),
        (DLinOSS, {"dt_std": -1.0}, "dt_std must be at least 0, got -1.0"),
    ],
)
def test_values_out_of_range_are_refused(kind: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(D, N, **options, rngs=nnx.Rngs(0))


def test_damped_oscillators_start_in_the_ring() -> None:
    layer = DLinOSS(D, 500, r_min=0.95, r_max=0.99, rngs=nnx.Rngs(0))
    modulus = np.abs(layer.eigenvalues()[""])
    assert 0.949 < modulus.min() < 0.955
    assert 0.985 < modulus.max() < 0.991
