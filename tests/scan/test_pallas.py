"""The Pallas kernels: with the blocks of each platform, and lowered for it.

`test_law.py` runs them through blocks that are small on purpose. Pallas' interpreter fills what
lies beyond the arrays with NaN, so that equality proves that none of it gets in.
"""

from dataclasses import replace
from functools import partial

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from lru.scan import linear_scan, reference
from lru.scan.pallas import launch

TRITON, MOSAIC = "__gpu$xla.gpu.triton", "tpu_custom_call"
by_platform = pytest.mark.parametrize(("platform", "target"), [("cuda", TRITON), ("tpu", MOSAIC)])
# Not a multiple of any block below, along time or lanes.
RAGGED = (2, 37, 40)
pallas_scan = partial(linear_scan, method="pallas")


def random(seed: int, shape: tuple[int, ...], dtype: str, scale: float = 1.0) -> jax.Array:
    draws = np.random.default_rng(seed).standard_normal((2, *shape)) * scale
    return jnp.asarray(draws[0] + 1j * draws[1] if dtype.startswith("complex") else draws[0], dtype)


def arguments(shape: tuple[int, ...], of_a: str, of_b: str, varying: bool) -> tuple:
    """Arrays a, b and h0, and resets."""
    rows, steps, width = shape
    a = random(1, shape if varying else (width,), of_a, 0.6)
    h0 = random(3, (rows, width), "float32")
    resets = jnp.asarray(np.random.default_rng(4).random((rows, steps)) < 0.1)
    return a, random(2, shape, of_b), h0, resets


def pull(scan, a, b, h0, resets, reverse: bool = False) -> tuple:
    """Outputs, and the gradients of a, b and h0 for random weights on them."""
    values, vjp = jax.vjp(lambda *x: scan(*x, resets=resets, reverse=reverse), a, b, h0)
    return values, vjp(tuple(random(i, x.shape, x.dtype.name) for i, x in enumerate(values)))


TARGETS = {"gpu": launch.GPU, "tpu": replace(launch.TPU, lanes=32, steps=16)}


@pytest.mark.usefixtures("_traced_anew")
@pytest.mark.parametrize(
    ("target", "of_a", "of_b", "varying", "reverse"),
    [
        ("gpu", "complex64", "complex64", False, False),
        ("tpu", "complex64", "complex64", True, True),
        ("tpu", "float32", "complex64", False, True),
        ("gpu", "bfloat16", "bfloat16", True, False),
    ],
)
def test_ragged_blocks_equal_the_oracle(
    target: str, of_a: str, of_b: str, varying: bool, reverse: bool, monkeypatch
) -> None:
    interpreted = replace(TARGETS[target], options=launch.INTERPRETER.options)
    monkeypatch.setattr(launch, "INTERPRETER", interpreted)
    given = arguments(RAGGED, of_a, of_b, varying)
    result = jax.jit(partial(pull, pallas_scan, reverse=reverse))(*given)
    wanted = jax.jit(partial(pull, reference.linear_scan, reverse=reverse))(*given)
    for x, y in zip(jax.tree.leaves(result), jax.tree.leaves(wanted), strict=True):
        assert x.dtype == y.dtype
        allowed = 20 * jnp.finfo(x.dtype).eps
        x, y = (np.asarray(z, jnp.promote_types(z.dtype, "float32")) for z in (x, y))
        np.testing.assert_allclose(x, y, rtol=allowed, atol=allowed * abs(y).max())


@pytest.mark.parametrize(("width", "masked"), [(40, True), (64, False)])
def test_memory_beyond_the_lanes_is_spared_on_a_gpu(width: int, masked: bool) -> None:
    """There blocks are not copies: to write all of the last one would hit the next step."""
    x, state = jnp.ones((2, 5, 2, width)), jnp.ones((2, 2, width))
    forward, backward = partial(launch.forward, False), partial(launch.backward, False, x.dtype)
    for kernel, given in ((forward, (x, x, state, None)), (backward, (x, x, state, None, x))):
        traced = str(jax.make_jaxpr(partial(kernel, launch.GPU))(*given))
        accesses = [line for line in traced.splitlines() if "<-" in line]
        assert accesses
        assert all(("mask=" in line) == masked for line in accesses)


@pytest.fixture
def lowered(exported):
    """Exports a function of arguments for a platform, as text."""
    return lambda *arguments: str(exported(*arguments).mlir_module())


@by_platform
@pytest.mark.parametrize("dtype", ["complex64", "bfloat16"])
def test_kernels_are_lowered_and_not_interpreted(
    platform: str, target: str, dtype: str, lowered
) -> None:
    given = arguments((2, 131, 40), dtype, dtype, varying=True)
    forward = lowered(
        platform, lambda a, b, h0, resets: pallas_scan(a, b, h0, resets=resets), *given
    )
    both = lowered(platform, partial(pull, pallas_scan), *given)
    for module, kernels in ((forward, 1), (both, 2)):
        assert module.count(f"@{target}") == kernels
        assert "stablehlo.while" not in module


@by_platform
def test_kernels_are_lowered_under_vmap_and_with_64_bits(
    platform: str, target: str, lowered
) -> None:
    given = [jnp.stack([x, x]) for x in arguments((2, 131, 40), "float32", "float32", False)]
    with jax.enable_x64(True):
        module = lowered(platform, jax.vmap(partial(pull, pallas_scan)), *given)
    assert module.count(f"@{target}") == 2
    assert "stablehlo.while" not in module


@by_platform
def test_bfloat16_is_read_by_the_kernel(platform: str, target: str, lowered) -> None:
    """So a pass over memory that converts it is saved."""
    given = arguments((2, 5, 40), "bfloat16", "bfloat16", varying=True)[:2]
    module = lowered(platform, pallas_scan, *given)
    (call,) = [line for line in module.splitlines() if f"@{target}" in line]
    types = call[call.rindex(" : (") :]
    assert types.count("tensor<2x5x1x40xbf16>") == 2


def test_double_precision_goes_elsewhere() -> None:
    with jax.enable_x64(True):
        given = arguments((2, 5, 4), "float64", "float64", varying=False)
        assert "pallas_call" not in str(jax.make_jaxpr(partial(pull, pallas_scan))(*given))
