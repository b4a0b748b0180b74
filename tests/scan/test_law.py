"""The law of the scans: every registered method equals the oracle, whatever the call."""

import functools
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lru import scan
from lru.scan import DENSE_METHODS, LINEAR_METHODS, reference

B, N = 3, 4
METHODS = [("linear", name) for name in LINEAR_METHODS] + [("dense", name) for name in DENSE_METHODS]
by_method = pytest.mark.parametrize(("kind", "method"), METHODS)
# Compiling is most of the time of these tests; what they prove does not need optimised code.
jit = functools.partial(
    jax.jit,
    compiler_options={
        "xla_backend_optimization_level": 0,
        "xla_llvm_disable_expensive_passes": True,
    },
)


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
        Case(a, b, varying, reverse=reverse)
        for a in ("float32", "complex64")
        for b in ("float32", "complex64")
        for varying in (False, True)
        for reverse in (False, True)
    ),
    *(
        replace(SIMPLE, reverse=reverse, varying=varying, **option)
        for option in ({}, {"h0": True}, {"resets": True}, {"lengths": True})
        for varying in (False, True)
        for reverse in (False, True)
    ),
    *(Case(steps=steps, varying=varying) for steps in (1, 2) for varying in (False, True)),
    Case(steps=33),
    Case(steps=33, varying=True, reverse=True),
    Case("bfloat16", "bfloat16"),
    Case("complex64", "bfloat16", varying=True, reverse=True),
    Case("float64", "float64"),
    Case("complex128", "float32", varying=True),
    Case("complex128", "complex128", reverse=True),
]


def random(seed: int, shape: tuple[int, ...], dtype: str, scale: float = 1.0) -> jax.Array:
    draws = np.random.default_rng(seed).standard_normal((2, *shape)) * scale
    return jnp.asarray(draws[0] + 1j * draws[1] if dtype.startswith("complex") else draws[0], dtype)


def arguments(kind: str, case: Case) -> tuple[tuple, dict]:
    """The differentiable arguments of a call, and the others."""
    shape_of_b = (B, case.steps, N)
    shape_of_a = (N, N) if kind == "dense" else shape_of_b if case.varying else (N,)
    a = random(1, shape_of_a, case.a, 0.4)
    b = random(2, shape_of_b, case.b)
    h0 = (random(3, (B, N), case.b),) if case.h0 else ()
    others: dict[str, Any] = {}
    if case.resets:
        others["resets"] = jnp.asarray(np.random.default_rng(4).random((B, case.steps)) < 0.3)
    if case.lengths:
        others["lengths"] = jnp.array([case.steps, (case.steps + 1) // 2, 0])
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
    return jit(lambda *x: pull(oracle, case, *x))(arrays, others)


def public(kind: str, method: str) -> Callable:
    return functools.partial(getattr(scan, f"{kind}_scan"), method=method)


def check_close(result: Any, wanted: Any, dtype: Any = None) -> None:
    assert jax.tree.structure(result) == jax.tree.structure(wanted)
    for x, y in zip(jax.tree.leaves(result), jax.tree.leaves(wanted), strict=True):
        assert x.dtype == y.dtype
        narrow = jnp.finfo(x.dtype if dtype is None else dtype).eps
        x, y = (np.asarray(z, "complex128" if jnp.iscomplexobj(z) else "float64") for z in (x, y))
        np.testing.assert_allclose(x, y, rtol=50 * narrow, atol=50 * narrow * max(1, abs(y).max()))


@pytest.mark.parametrize("case", CASES, ids=str)
@by_method
def test_values_and_gradients_equal_the_oracle(kind: str, method: str, case: Case) -> None:
    if kind == "dense" and case.varying:
        pytest.skip("A is constant")
    with jax.enable_x64("64" in case.a or "128" in case.a):
        arrays, others = arguments(kind, case)
        result = jit(lambda *x: pull(public(kind, method), case, *x))(arrays, others)
        check_close(result, expected(kind, case))
        wide = "float64" if "64" in case.a.replace("complex64", "") or "128" in case.a else "float32"
        assert jnp.finfo(result[0][0].dtype).dtype == wide
