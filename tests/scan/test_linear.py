"""The public scans: what they refuse, which types they return, how `auto` chooses."""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import pytest

from lru import scan
from lru.registry import UnknownNameError
from lru.scan.methods import LINEAR_METHODS, NARROW

# Below the annotations that tests enforce, so that the messages of the functions show.
linear_scan = inspect.unwrap(scan.linear_scan)
dense_scan = inspect.unwrap(scan.dense_scan)
a, A, b = jnp.ones(4), jnp.ones((4, 4)), jnp.ones((2, 5, 4))


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("a", {"a": jnp.ones(3)}),
        ("a", {"a": jnp.ones((5, 4))}),
        ("a", {"a": jnp.ones(4, int)}),
        ("b", {"b": jnp.ones((5, 4))}),
        ("b", {"b": jnp.ones((2, 0, 4))}),
        ("b", {"b": jnp.ones((2, 5, 4), int)}),
        ("h0", {"h0": jnp.ones(4)}),
        ("h0", {"h0": jnp.ones((2, 4), int)}),
        ("resets", {"resets": jnp.ones((2, 4), bool)}),
        ("resets", {"resets": jnp.ones((2, 5))}),
        ("lengths", {"lengths": jnp.ones(3, int)}),
        ("lengths", {"lengths": jnp.ones(2)}),
    ],
)
def test_bad_arguments_are_named(name: str, given: dict) -> None:
    with pytest.raises(ValueError, match=rf"^{name} has (shape|dtype) .* allow"):
        linear_scan(**{"a": a, "b": b, **given})


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (jnp.ones((2, 5, 4)), r"b has shape \(2, 5, 4\), but pairs \[B, T, 2, N\]"),
        (jnp.ones((2, 5, 1, 4)), r"b has shape .* pairs"),
        (jnp.ones((2, 5, 2, 4), "complex64"), "b has dtype complex64, but only real floats"),
        (jnp.ones((2, 5, 2, 3)), r"a has shape \(4,\), but b \(2, 5, 3\) allows"),
    ],
)
def test_bad_pairs_are_named(given: jax.Array, says: str) -> None:
    with pytest.raises(ValueError, match=f"^{says}"):
        inspect.unwrap(scan.paired_scan)(a, given)


def test_a_bad_matrix_is_named() -> None:
    with pytest.raises(ValueError, match=r"^A has shape \(4,\), but b .* allows \(4, 4\)"):
        dense_scan(a, b)
    with pytest.raises(ValueError, match=r"^A has dtype int32"):
        dense_scan(A.astype(int), b)


@pytest.mark.parametrize(("call", "matrix"), [(scan.linear_scan, a), (scan.dense_scan, A)])
def test_unknown_method_lists_the_known_ones(call, matrix) -> None:
    with pytest.raises(UnknownNameError, match=r"associative.*sequential"):
        call(matrix, b, method="sequentail")


@pytest.mark.parametrize(("call", "matrix"), [(scan.linear_scan, a), (scan.dense_scan, A)])
@pytest.mark.parametrize(
    ("of_a", "of_b", "of_h"),
    [
        ("bfloat16", "bfloat16", "float32"),
        ("float32", "float16", "float32"),
        ("float32", "complex64", "complex64"),
        ("complex64", "bfloat16", "complex64"),
        ("float64", "float32", "float64"),
        ("complex64", "float64", "complex128"),
    ],
)
def test_state_is_at_least_single_precision(call, matrix, of_a, of_b, of_h) -> None:
    with jax.enable_x64(True):
        h, h_last = jax.eval_shape(call, matrix.astype(of_a), b.astype(of_b))
    assert h.dtype == h_last.dtype == of_h


@pytest.mark.parametrize("method", sorted(n for n, m in LINEAR_METHODS.items() if m in NARROW))
def test_states_kept_in_bfloat16_round_the_gradient_of_factors_alone(method) -> None:
    keys = jax.random.split(jax.random.key(0), 3)
    factors, inputs, g = (jax.random.uniform(key, (2, 9, 3)) for key in keys)

    def run(compute_dtype: str) -> tuple:
        solve = partial(scan.linear_scan, method=method, compute_dtype=compute_dtype)
        h, pull = jax.vjp(lambda *arrays: solve(*arrays)[0], factors, inputs)
        return h, *pull(g)

    for name, narrow, wide in zip("hab", run("bfloat16"), run("float32"), strict=True):
        assert narrow.dtype == jnp.float32
        if name == "a":
            assert not jnp.array_equal(narrow, wide)
        assert jnp.allclose(narrow, wide, rtol=4e-3 if name == "a" else 0, atol=0)
