"""The law of the scans: every registered method equals the oracle, whatever the call."""

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from lru import scan
from lru.layers import LSTM
from lru.scan import DENSE_METHODS, LINEAR_METHODS, reference, select

B, N = 3, 4
METHODS = [("linear", name) for name in LINEAR_METHODS] + [
    ("dense", name) for name in DENSE_METHODS
]
by_method = pytest.mark.parametrize(("kind", "method"), METHODS)
# What holds for the oracle holds for a method that equals it in values and gradients, of a start
# and of the last state too.
of_the_oracle = pytest.mark.parametrize("kind", ["linear", "dense"])


@dataclass(frozen=True)
class Case:
    """One call of a scan: what its arrays are and which options it takes."""

    a: str = "complex64"
    b: str = "complex64"
    varying: bool = False
    steps: int = 7
    reverse: bool = False
    h0: bool = True
    resets: bool = True
    lengths: bool = True

    def __str__(self) -> str:
        options = [x for x in ("varying", "reverse", "h0", "resets", "lengths") if getattr(self, x)]
        return "-".join([self.a, self.b, str(self.steps), *options])


SIMPLE = Case(h0=False, resets=False, lengths=False)
CASES = [
    *(
        Case(a, b, varying, reverse=varying)
        for a in ("float32", "complex64")
        for b in ("float32", "complex64")
        for varying in (False, True)
    ),
    SIMPLE,
    replace(SIMPLE, varying=True, h0=True),
    replace(SIMPLE, h0=True, reverse=True),
    replace(SIMPLE, varying=True, resets=True),
    replace(SIMPLE, lengths=True),
    replace(SIMPLE, varying=True, lengths=True, reverse=True),
    Case(steps=1),
    Case(steps=2, varying=True),
    Case(steps=19),
    Case(steps=19, varying=True),
    Case("bfloat16", "bfloat16"),
    Case("complex64", "bfloat16", varying=True),
    Case("float64", "float64", reverse=True),
    Case("complex128", "float32", reverse=True),
]


def random(seed: int, shape: tuple[int, ...], dtype: str, scale: float = 1.0) -> jax.Array:
    draws = np.random.default_rng(seed).standard_normal((2, *shape)) * scale
    return jnp.asarray(draws[0] + 1j * draws[1] if dtype.startswith("complex") else draws[0], dtype)


def arguments(kind: str, case: Case) -> tuple[tuple, dict]:
    """The differentiable arguments of a call, and the others."""
    of_h, of_a = {"dense": ((N,), (N, N)), "block": ((2, N), (2, 2, N))}.get(kind, ((N,), (N,)))
    a = random(1, (B, case.steps, *of_a) if case.varying else of_a, case.a, 0.4)
    b = random(2, (B, case.steps, *of_h), case.b)
    h0 = (random(3, (B, *of_h), case.b),) if case.h0 else ()
    others: dict[str, Any] = {}
    if case.resets:
        others["resets"] = jnp.asarray(np.random.default_rng(4).random((B, case.steps)) < 0.3)
    if case.lengths:
        others["lengths"] = jnp.array([case.steps, (case.steps + 1) // 2, 0])
    if kind == "block":
        others["reset_to"] = random(9, (B, *of_h), case.b)
    return (a, b, *h0), others


def pull(scan_function: Callable, case: Case, arrays: tuple, others: dict) -> tuple:
    """Outputs, and gradients for random weights on h and h_last (at padding too)."""

    def outputs(arrays: tuple) -> tuple:
        return scan_function(*arrays, reverse=case.reverse, **others)

    values, vjp = jax.vjp(outputs, arrays)
    weights = tuple(random(i, x.shape, x.dtype.name) for i, x in enumerate(values, start=5))
    return values, vjp(weights)[0]


@functools.cache
def expected(kind: str, case: Case) -> tuple:
    oracle = getattr(reference, f"{kind}_scan")
    arrays, others = arguments(kind, case)
    return jax.jit(lambda *x: pull(oracle, case, *x))(arrays, others)


def public(kind: str, method: str) -> Callable:
    return functools.partial(getattr(scan, f"{kind}_scan"), method=method)


def check_close(result: Any, wanted: Any) -> None:
    assert jax.tree.structure(result) == jax.tree.structure(wanted)
    for x, y in zip(jax.tree.leaves(result), jax.tree.leaves(wanted), strict=True):
        assert x.dtype == y.dtype
        eps = jnp.finfo(x.dtype).eps
        x, y = (np.asarray(z, jnp.promote_types(z.dtype, jnp.float32)) for z in (x, y))
        allowed = 50 * eps
        np.testing.assert_allclose(x, y, rtol=allowed, atol=allowed * max(1, abs(y).max()))


@pytest.mark.parametrize(
    ("kind", "method", "case"),
    [(*m, case) for m in METHODS for case in CASES if not (m[0] == "dense" and case.varying)],
    ids=str,
)
def test_values_and_gradients_equal_the_oracle(kind: str, method: str, case: Case) -> None:
    with jax.enable_x64(case.a in ("float64", "complex128")):
        arrays, others = arguments(kind, case)
        result = jax.jit(lambda *x: pull(public(kind, method), case, *x))(arrays, others)
        check_close(result, expected(kind, case))


@pytest.mark.parametrize("method", LINEAR_METHODS)
def test_real_pairs_are_complex_numbers(method: str) -> None:
    """The scan of pairs has the values and gradients of the oracle."""
    case = Case(varying=True)
    (a, b, h0), others = arguments("linear", case)

    def pairs(a: jax.Array, b: jax.Array, h0: jax.Array, **others: Any) -> tuple:
        h, h_last = scan.paired_scan(a, pair(b), h0, **others, method=method)
        return jax.lax.complex(h[:, :, 0], h[:, :, 1]), h_last

    def pair(x: jax.Array) -> jax.Array:
        return jnp.stack([x.real, x.imag], axis=2)

    result = jax.jit(lambda *x: pull(pairs, case, *x))((a, b, h0), others)
    check_close(result, expected("linear", case))


REAL = Case("float32", "float32")


@pytest.mark.parametrize("method", LINEAR_METHODS)
@pytest.mark.parametrize(
    "case",
    [
        REAL,
        replace(REAL, varying=True, reverse=True),
        replace(REAL, steps=19, reverse=True),
        Case("float64", "float64", varying=True),
    ],
    ids=str,
)
def test_blocks_have_values_and_gradients_of_the_oracle(method: str, case: Case) -> None:
    with jax.enable_x64(case.a == "float64"):
        arrays, others = arguments("block", case)
        result = jax.jit(lambda *x: pull(public("block", method), case, *x))(arrays, others)
        check_close(result, expected("block", case))


@by_method
def test_fully_optimised_code_equals_the_oracle(kind: str, method: str) -> None:
    case = Case(steps=33, reverse=True, varying=kind == "linear")
    arrays, others = arguments(kind, case)
    fully = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}
    if "fusion_emitters=false" in os.environ.get("XLA_FLAGS", ""):
        fully["xla_cpu_use_fusion_emitters"] = True
    run = jax.jit(lambda *x: pull(public(kind, method), case, *x), compiler_options=fully)
    result = run(arrays, others)
    check_close(result, expected(kind, case))


@pytest.mark.parametrize("reverse", [False, True])
@of_the_oracle
def test_chunks_with_carried_state_are_the_whole(kind: str, reverse: bool) -> None:
    case = replace(SIMPLE, h0=True, resets=True, reverse=reverse)
    scan_function = getattr(reference, f"{kind}_scan")

    def in_chunks(a, b, h0, *, reverse, resets):
        chunks = []
        bounds = [(0, 3), (3, 4), (4, 7)]
        for start, stop in reversed(bounds) if reverse else bounds:
            chunk = slice(start, stop)
            h, h0 = scan_function(a, b[:, chunk], h0, reverse=reverse, resets=resets[:, chunk])
            chunks.append(h)
        return jnp.concatenate(chunks[::-1] if reverse else chunks, axis=1), h0

    arrays, others = arguments(kind, case)
    check_close(jax.jit(lambda *x: pull(in_chunks, case, *x))(arrays, others), expected(kind, case))


@by_method
def test_reset_is_a_fresh_start_even_after_infinity(kind: str, method: str) -> None:
    (a, b, h0), _ = arguments(kind, Case())
    b = b.at[:, 2].set(jnp.inf)
    resets = jnp.zeros((B, 7), bool).at[:, 3].set(True)
    call = jax.jit(public(kind, method))
    together, last = call(a, b, h0, resets=resets)
    check_close((together[:, 3:], last), call(a, b[:, 3:]))


@pytest.mark.parametrize("reverse", [False, True])
@by_method
def test_padding_changes_nothing_not_even_nan(kind: str, method: str, reverse: bool) -> None:
    case = Case(varying=kind == "linear", reverse=reverse)
    (a, b, h0), others = arguments(kind, case)
    padding = (jnp.arange(case.steps) >= others["lengths"][:, None])[..., None]

    def outputs(a: jax.Array, b: jax.Array, h0: jax.Array) -> tuple:
        return public(kind, method)(a, b, h0, reverse=reverse, **others)

    @jax.jit
    def run(filler: jax.Array) -> tuple:
        dirty_a = jnp.where(padding, filler, a) if case.varying else a
        values, vjp = jax.vjp(outputs, dirty_a, jnp.where(padding, filler, b), h0)
        weights = [random(i, x.shape, x.dtype.name) for i, x in enumerate(values)]
        return values, vjp((jnp.where(padding, filler, weights[0]), weights[1]))

    clean, dirty = run(jnp.zeros(())), run(jnp.full((), jnp.nan))
    check_close(dirty, clean)
    (h, h_last), (da, db, _) = dirty
    for x in (h, db, *([da] if case.varying else [])):
        assert not jnp.any(jnp.where(padding, x, 0))
    np.testing.assert_array_equal(h_last[2], h0[2])


def overflowing(kind: str, reverse: bool) -> tuple[jax.Array, jax.Array]:
    """A factor of which 2^256 is infinite, and inputs in nothing but the last step or two."""
    steps, varying = 300, reverse and kind == "linear"
    a = 2 * jnp.eye(N) if kind == "dense" else jnp.full(N, 2 * 1j, "complex64")
    a = jnp.broadcast_to(a, (B, steps, N)) if varying else a
    dtype = "float32" if kind == "dense" else "complex64"
    b = jnp.zeros((B, steps, N), dtype).at[:, slice(2) if reverse else slice(-2, None)].set(1)
    return a, b


@functools.cache
def overflowing_expected(kind: str, reverse: bool) -> tuple:
    oracle = functools.partial(getattr(reference, f"{kind}_scan"), reverse=reverse)
    wanted = jax.jit(oracle)(*overflowing(kind, reverse))
    assert np.all(np.isfinite(wanted[0]))
    return wanted


@pytest.mark.parametrize("reverse", [False, True])
@by_method
def test_powers_that_overflow_touch_no_state_that_is_zero(
    kind: str, method: str, reverse: bool
) -> None:
    run = jax.jit(functools.partial(public(kind, method), reverse=reverse))
    check_close(run(*overflowing(kind, reverse)), overflowing_expected(kind, reverse))


@by_method
def test_a_row_alone_is_the_row_in_the_batch(kind: str, method: str) -> None:
    case = Case()
    (a, b, h0), others = arguments(kind, case)
    call = jax.jit(public(kind, method))
    h, h_last = call(a, b, h0, **others)
    for row in range(B):
        one = slice(row, row + 1)
        alone = call(a, b[one], h0[one], **{name: x[one] for name, x in others.items()})
        check_close(alone, (h[one], h_last[one]))


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@of_the_oracle
def test_gradients_equal_finite_differences(kind: str, dtype: str) -> None:
    """With JAX's convention for complex x: a step d changes the loss by Re(sum(gradient d))."""
    with jax.enable_x64(True):
        case = Case(dtype, dtype, varying=kind == "linear", steps=5)
        arrays, others = arguments(kind, case)
        directions = [random(i, x.shape, dtype) for i, x in enumerate(arrays, start=10)]

        def loss(arrays: tuple) -> jax.Array:
            h, h_last = getattr(reference, f"{kind}_scan")(*arrays, **others)
            return jnp.sum(jnp.sin(jnp.abs(h) ** 2)) + jnp.sum(jnp.abs(h_last - 1) ** 2)

        values_and_gradients = jax.jit(jax.value_and_grad(loss))
        gradients = values_and_gradients(arrays)[1]
        for which, (gradient, direction) in enumerate(zip(gradients, directions, strict=True)):
            ends = []
            for step in (1e-6, -1e-6):
                moved = [x + step * direction if i == which else x for i, x in enumerate(arrays)]
                ends.append(values_and_gradients(tuple(moved))[0])
            wanted = jnp.sum(gradient * direction).real
            np.testing.assert_allclose((ends[0] - ends[1]) / 2e-6, wanted, rtol=1e-6)


def change_of_gradient(kind: str, scan_function: Callable, mode: str) -> Any:
    """The change of a gradient in a direction, of which a Hessian is made."""
    case = Case("float32", "float32", varying=kind == "linear", steps=6)
    arrays, others = arguments(kind, case)
    directions = tuple(random(i, x.shape, "float32") for i, x in enumerate(arrays, start=10))

    def loss(arrays: tuple) -> jax.Array:
        h, h_last = scan_function(*arrays, **others)
        return jnp.sum(jnp.sin(h)) + jnp.sum(h_last**3)

    @jax.jit
    def change(arrays: tuple) -> Any:
        if mode == "forward":
            return jax.jvp(jax.grad(loss), (arrays,), (directions,))[1]
        return jax.vjp(jax.grad(loss), arrays)[1](directions)[0]

    return change(arrays)


@functools.cache
def change_of_the_oracle(kind: str, mode: str) -> Any:
    return change_of_gradient(kind, getattr(reference, f"{kind}_scan"), mode)


@pytest.mark.parametrize("mode", ["reverse", "forward"])
@by_method
def test_second_derivatives_equal_those_of_the_oracle(kind: str, method: str, mode: str) -> None:
    result = change_of_gradient(kind, public(kind, method), mode)
    check_close(result, change_of_the_oracle(kind, mode))


@functools.cache
def one_by_one(kind: str, case: Case) -> tuple:
    """The oracle's results for a call and for two with multiples of its arrays, stacked."""
    arrays, others = arguments(kind, case)
    oracle = getattr(reference, f"{kind}_scan")
    run = jax.jit(lambda *x: pull(oracle, case, *x))
    results = [run(tuple(factor * x for x in arrays), others) for factor in (1, 2, -1)]
    return jax.tree.map(lambda *x: np.stack(x), *results)


@by_method
def test_vmap_over_every_argument(kind: str, method: str) -> None:
    case = Case(lengths=False)
    arrays, others = arguments(kind, case)
    stacked = tuple(jnp.stack([x, 2 * x, -x]) for x in arrays)

    @jax.jit
    @jax.vmap
    def run(arrays: tuple) -> tuple:
        return pull(public(kind, method), case, arrays, others)

    check_close(run(stacked), one_by_one(kind, case))


@by_method
def test_lowers_for_gpu_and_tpu(kind: str, method: str, exported: Callable) -> None:
    case = Case()
    arrays, others = arguments(kind, case)
    run = functools.partial(pull, public(kind, method), case)
    for platform in ("cuda", "tpu"):
        assert exported(platform, run, arrays, others).platforms == (platform,)


def test_sequential_needs_no_memory_beside_its_inputs_and_outputs() -> None:
    """So a constant a is not repeated over time, and there is no copy with time in front."""
    shape = (2, 257, 2, 64)

    def run(a: jax.Array, x: jax.Array, g: jax.Array) -> tuple:
        h, vjp = jax.vjp(lambda a, x: scan.paired_scan(a, x, method="sequential")[0], a, x)
        return h, vjp(g)

    a, x = (jax.ShapeDtypeStruct((64,), "complex64"), jax.ShapeDtypeStruct(shape, "float32"))
    memory = jax.jit(run, donate_argnums=(1, 2)).lower(a, x, x).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 0.1 * 4 * np.prod(shape)


# Every public scan, of inputs and a state before them.
ENTRIES = {
    "linear_scan": lambda x, h0, **options: scan.linear_scan(jnp.full(N, 0.9), x, h0, **options),
    "paired_scan": lambda x, h0, **options: scan.paired_scan(
        jnp.full(N, 0.9), jnp.stack([x, x], axis=2), h0, **options
    ),
    "block_scan": lambda x, h0, **options: scan.block_scan(
        0.4 * jnp.ones((2, 2, N)), jnp.stack([x, x], 2), jnp.stack([h0, h0], 1), **options
    ),
    "dense_scan": lambda x, h0, **options: scan.dense_scan(0.9 * jnp.eye(N), x, h0, **options),
    "forget_mult": lambda x, h0, **options: scan.forget_mult(jax.nn.sigmoid(x), x, h0, **options),
    "pooled_scan": lambda x, h0, **options: scan.pooled_scan(
        jnp.tile(x, 3), None, h0, gates="fo", **options
    ),
    "projected_scan": lambda x, h0, **options: scan.projected_scan(
        jnp.full(N, 0.9), x, jnp.eye(N, 2 * N), jnp.eye(2 * N, N), h0, **options
    ),
    "gated_scan": lambda x, h0, **options: scan.gated_scan(
        LSTM.cell, jnp.tile(x, 4), 0.1 * jnp.ones((N, 4 * N)), (h0, h0), **options
    ),
}


KERNELS = {
    "cuda": {"pallas": "@__gpu$xla.gpu.triton", "mosaic": "@mosaic_gpu"},
    "tpu": {"pallas": "@tpu_custom_call", "mosaic": "@tpu_custom_call"},
}


@pytest.mark.usefixtures("_traced_anew")
@pytest.mark.parametrize("platform", KERNELS)
@pytest.mark.parametrize(
    ("entry", "method"),
    [
        *((entry, "auto") for entry in ENTRIES),
        *(
            (entry, method)
            for entry in ENTRIES
            for method in ("pallas", "mosaic")
            if entry not in ("dense_scan", "gated_scan")
        ),
    ],
)
def test_every_scan_is_lowered_for_an_accelerator(
    entry: str, method: str, platform: str, exported: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With gradients, as if this process had one H100, or a TPU."""
    monkeypatch.setattr(jax, "default_backend", {"cuda": "gpu"}.get(platform, platform).format)
    monkeypatch.setattr(jax, "devices", lambda: [SimpleNamespace(compute_capability="9.0")])
    monkeypatch.setattr(select, "LEAST_LANES", 1)
    options = {} if entry == "gated_scan" else {"method": method}

    def run(x: jax.Array, h0: jax.Array) -> tuple:
        values, pull = jax.vjp(lambda *x: ENTRIES[entry](*x, **options), x, h0)
        return values, pull(jax.tree.map(jnp.ones_like, values))

    x, h0 = random(0, (B, 9, N), "float32"), random(1, (B, N), "float32")
    module = str(exported(platform, run, x, h0).mlir_module())
    kernel = KERNELS[platform].get(method)
    if method == "auto" and platform == "cuda" and entry not in ("dense_scan", "gated_scan"):
        kernel = KERNELS[platform]["pallas"]
    for call in KERNELS[platform].values():
        assert module.count(call) == (2 if call == kernel else 0)
    assert "lru_" not in module


EMPTY = {"no rows": (0, 5, N), "no states": (B, 5, 0), "neither": (0, 5, 0)}


@by_method
@pytest.mark.parametrize("shape", EMPTY.values(), ids=EMPTY)
def test_empty_arrays_have_empty_results(
    kind: str, method: str, shape: tuple[int, int, int]
) -> None:
    rows, _, width = shape
    a = jnp.ones((width, width) if kind == "dense" else (width,), "complex64")
    arrays = (a, jnp.ones(shape, "complex64"), jnp.ones((rows, width), "complex64"))
    others = {"lengths": jnp.full(rows, 3), "resets": jnp.zeros(shape[:2], bool)}
    for options in ({}, others):
        values, gradients = pull(public(kind, method), Case(), arrays, options)
        assert [x.shape for x in (*values, *gradients)] == [
            x.shape for x in (arrays[1], arrays[2], *arrays)
        ]
        np.testing.assert_array_equal(gradients[0], jnp.zeros_like(a))


@pytest.mark.parametrize(
    ("rows", "inputs", "width", "outputs"),
    [(0, 2, 3, 4), (2, 0, 3, 4), (2, 2, 0, 4), (2, 2, 3, 0), (0, 0, 0, 0)],
)
@pytest.mark.parametrize("method", ["native", "sequential"])
def test_empty_projections(rows: int, inputs: int, width: int, outputs: int, method: str) -> None:
    arrays = (
        random(0, (width,), "complex64"),
        random(1, (rows, 5, inputs), "float32"),
        random(2, (inputs, 2 * width), "float32"),
        random(3, (2 * width, outputs), "float32"),
        random(4, (rows, width), "complex64"),
    )
    case = Case()
    run = functools.partial(scan.projected_scan, method=method)
    values, gradients = jax.jit(lambda *x: pull(run, case, x, {}))(*arrays)
    assert [x.shape for x in values] == [(rows, 5, outputs), (rows, width)]
    assert [x.shape for x in gradients] == [x.shape for x in arrays]
    if not (rows and inputs and width):
        # h is a power of a times h0, or nothing.
        h_last = arrays[0] ** 5 * arrays[4]
        np.testing.assert_allclose(values[1], h_last, rtol=1e-5)


@pytest.mark.parametrize("entry", ENTRIES)
def test_what_is_said_about_padding_reaches_no_gradient(entry: str) -> None:
    x, h0 = random(0, (B, 9, N), "float32"), random(1, (B, N), "float32")
    lengths = jnp.array([9, 4, 0])
    (y, _), pull = jax.vjp(jax.jit(lambda *x: ENTRIES[entry](*x, lengths=lengths)), x, h0)
    padding = (jnp.arange(9) >= lengths[:, None]).reshape(B, 9, *[1] * (y.ndim - 2))
    last = jax.tree.map(jnp.ones_like, jax.eval_shape(ENTRIES[entry], x, h0)[1])
    gradients = [pull((jnp.where(padding, at_padding, y), last)) for at_padding in (0, jnp.nan)]
    for clean, other in zip(*gradients, strict=True):
        np.testing.assert_array_equal(other, clean)


@pytest.mark.parametrize(
    ("dtype", "longest"), [("uint8", 255), ("int8", 127), ("uint32", 2**32 - 1)]
)
@pytest.mark.parametrize("entry", ENTRIES)
def test_lengths_may_be_of_any_type_of_integers(entry: str, dtype: str, longest: int) -> None:
    x, h0 = random(0, (B, 300, N), "float32"), random(1, (B, N), "float32")
    run = jax.jit(ENTRIES[entry])
    result = run(x, h0, lengths=jnp.array([longest, 7, 0], dtype))
    check_close(result, run(x, h0, lengths=jnp.array([min(longest, 300), 7, 0])))
