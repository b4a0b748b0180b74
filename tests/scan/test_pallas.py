"""The Pallas kernels: with the blocks of each platform, and lowered for it.

`test_law.py` runs them through blocks that are small on purpose. Pallas' interpreter fills what
lies beyond the arrays with NaN, so that equality proves that none of it gets in.
"""

import importlib.util
import logging
import sys
from dataclasses import replace
from functools import partial

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from lru.scan import linear_scan, pallas, reference, sequential
from lru.scan.pallas import launch, tiling

by_kernel = pytest.mark.parametrize(
    ("method", "platform", "target"),
    [
        ("pallas", "cuda", "__gpu$xla.gpu.triton"),
        ("mosaic", "cuda", "mosaic_gpu"),
        ("pallas", "tpu", "tpu_custom_call"),
        ("mosaic", "tpu", "tpu_custom_call"),
    ],
)
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


@by_kernel
@pytest.mark.parametrize("dtype", ["complex64", "bfloat16"])
def test_kernels_are_lowered_and_not_interpreted(
    method: str, platform: str, target: str, dtype: str, lowered
) -> None:
    given = arguments((2, 131, 40), dtype, dtype, varying=True)
    scan = partial(linear_scan, method=method)
    forward = lowered(platform, lambda a, b, h0, resets: scan(a, b, h0, resets=resets), *given)
    both = lowered(platform, partial(pull, scan), *given)
    for module, kernels in ((forward, 1), (both, 2)):
        assert module.count(f"@{target}") == kernels
        assert "stablehlo.while" not in module


@by_kernel
def test_kernels_are_lowered_under_vmap_and_with_64_bits(
    method: str, platform: str, target: str, lowered
) -> None:
    given = [jnp.stack([x, x]) for x in arguments((2, 131, 40), "float32", "float32", False)]
    run = jax.vmap(partial(pull, partial(linear_scan, method=method)))
    with jax.enable_x64(True):
        module = lowered(platform, run, *given)
    assert module.count(f"@{target}") == 2
    assert "stablehlo.while" not in module


@by_kernel
def test_bfloat16_is_read_by_the_kernel(method: str, platform: str, target: str, lowered) -> None:
    """So a pass over memory that converts it is saved."""
    given = arguments((2, 5, 128), "bfloat16", "bfloat16", varying=True)[:2]
    module = lowered(platform, partial(linear_scan, method=method), *given)
    (call,) = [line for line in module.splitlines() if f"@{target}" in line]
    types = call[call.rindex(" : (") :]
    assert types.count("tensor<2x5x1x128xbf16>") == 2


@pytest.mark.parametrize(
    ("width", "of_a", "parts", "dtype", "reverse"),
    [
        (130, (2, 130), 2, "float32", False),
        (40, (2, 11, 1, 40), 2, "float32", True),
        (128, (2, 11, 1, 128), 1, "bfloat16", False),
        (300, (1, 300), 1, "float32", True),
    ],
)
def test_views_of_a_warpgroup_equal_the_plain_loop(
    width: int, of_a: tuple, parts: int, dtype: str, reverse: bool
) -> None:
    """By the interpreter of Mosaic GPU, whose refs are whole arrays in the memory of a device."""
    params = pytest.importorskip(
        "jax._src.pallas.mosaic_gpu.interpret.params",
        reason="this JAX has no interpreter of Mosaic GPU",
    )
    target = replace(launch.MOSAIC, options={"interpret": params.InterpretGPUParams()})
    a, b = random(1, of_a, dtype, 0.6), random(2, (2, 11, parts, width), dtype)
    h0, g = random(3, (2, parts, width), "float32"), random(4, b.shape, "float32")
    keep = jnp.asarray(np.random.default_rng(5).random((2, 11)) < 0.7).at[:, (0, -1)].set(True)
    h = jax.jit(partial(launch.forward, reverse, target))(a, b, h0, keep)
    wide_a, wide_b = a.astype("float32"), b.astype("float32")
    wanted = sequential.solve(wide_a, wide_b, h0, keep, reverse)
    backward = partial(launch.backward, reverse, b.dtype, target)
    da, db, dh0 = jax.jit(backward)(a, wanted, h0, keep, g)
    da = da.sum(0) if a.ndim == 2 else da
    of_wanted = sequential.gradients(reverse, (wide_a, wanted, h0, keep), g)[:3]
    for x, y in zip((h, da, db, dh0), (wanted, *of_wanted), strict=True):
        allowed = 20 * jnp.finfo(x.dtype).eps
        x, y = np.asarray(x.astype("float32")), np.asarray(y)
        np.testing.assert_allclose(x, y, rtol=allowed, atol=allowed * abs(y).max())


@pytest.fixture
def _no_triton(monkeypatch):
    monkeypatch.setattr(launch, "GPU", None)
    pallas.has_triton.cache_clear()
    jax.clear_caches()
    yield
    pallas.has_triton.cache_clear()
    jax.clear_caches()


@pytest.mark.usefixtures("_no_triton")
def test_without_triton_all_steps_are_taken_at_once_on_a_gpu_which_is_said_once(
    lowered, caplog
) -> None:
    given = arguments((2, 131, 40), "bfloat16", "complex64", varying=True)
    module = lowered("cuda", partial(pull, pallas_scan), *given)
    wanted = lowered("cuda", partial(pull, partial(linear_scan, method="associative")), *given)
    assert "custom_call" not in module
    assert module.count("stablehlo.multiply") == wanted.count("stablehlo.multiply")
    assert "tpu_custom_call" in lowered("tpu", partial(pull, pallas_scan), *given)
    said = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert said == [
        f"JAX {jax.__version__} has no Triton for Pallas: on GPUs the scan method 'pallas' is "
        "'associative'"
    ]


def test_without_triton_nothing_fails_to_be_imported(monkeypatch) -> None:
    def anew(module):
        spec = importlib.util.spec_from_file_location("anew", module.__file__)
        found = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "anew", found)
        spec.loader.exec_module(found)
        return found

    assert anew(launch).GPU is not None
    monkeypatch.delattr(jax.experimental.pallas, "triton")
    monkeypatch.setitem(sys.modules, "jax.experimental.pallas.triton", None)
    without = anew(tiling)
    assert without.triton is None
    monkeypatch.setattr(tiling, "triton", None)
    assert anew(launch).GPU is None


def test_double_precision_goes_elsewhere() -> None:
    with jax.enable_x64(True):
        given = arguments((2, 5, 4), "float64", "float64", varying=False)
        assert "pallas_call" not in str(jax.make_jaxpr(partial(pull, pallas_scan))(*given))
