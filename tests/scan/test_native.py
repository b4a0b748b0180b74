"""The loops in C++: how they are compiled, what happens where they cannot be, and odd sizes."""

import functools
import os
import shutil
import stat

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lru.scan import cpu, dense_scan, linear_scan, projected_scan, reference


@pytest.fixture
def _fresh_library(monkeypatch, tmp_path):
    """An empty folder for compiled loops, and no memory of earlier attempts."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cpu.problem.cache_clear()
    yield
    cpu.problem.cache_clear()


@pytest.mark.usefixtures("_fresh_library")
@pytest.mark.parametrize(
    ("compiler", "message"),
    [("/no/such/compiler", "cannot be compiled: /no/such/compiler says"), ("false", "false says")],
)
def test_a_compiler_that_fails_is_named(compiler: str, message: str, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("CXX", compiler)
    with pytest.raises(cpu.NativeUnavailableError, match=message):
        linear_scan(jnp.ones(2), jnp.ones((1, 3, 2)), method="native")
    assert not list(tmp_path.rglob("*.so"))


@pytest.mark.usefixtures("_fresh_library")
def test_no_compiler_is_said_in_a_sentence(monkeypatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    assert cpu.problem() == (
        "scan method 'native' needs a C++ compiler, and none was found (c++, g++ or $CXX)"
    )


@pytest.mark.usefixtures("_fresh_library")
def test_a_library_is_compiled_once_and_only_its_owner_may_write(monkeypatch, tmp_path) -> None:
    compiler = shutil.which("c++") or shutil.which("g++")
    assert compiler, "the tests of this method need a C++ compiler"
    library = cpu._compiled(compiler)
    assert list(tmp_path.rglob("*.so")) == [library]
    assert not stat.S_IMODE(os.stat(library.parent).st_mode) & 0o077
    calls = []
    run = cpu._run

    def counted(command: list[str]) -> str:
        calls.append(command[1:])
        return run(command)

    monkeypatch.setattr(cpu, "_run", counted)
    assert cpu._compiled(compiler) == library
    assert calls == [["--version"]]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("rows", "steps", "width"), [(5, 131, 17), (3, 70, 128), (9, 3, 100)])
def test_dense_products_of_odd_sizes(rows: int, steps: int, width: int, reverse: bool) -> None:
    """Widths beside whole vectors and panels, rows beside whole tiles, steps beside blocks."""
    keys = jax.random.split(jax.random.key(0), 4)
    A = jax.random.normal(keys[0], (width, width)) * 0.7 / width**0.5
    b, g = (jax.random.normal(key, (rows, steps, width)) for key in keys[1:3])
    resets = jax.random.uniform(keys[3], (rows, steps)) < 0.1
    for options in ({}, {"resets": resets}):

        @functools.partial(jax.jit, static_argnums=0)
        def run(scan, options=options):
            def outputs(A, b, h0):
                return scan(A, b, h0, reverse=reverse, **options)[0]

            h, pull = jax.vjp(outputs, A, b, b[:, 0])
            return h, *pull(g)

        results = run(functools.partial(dense_scan, method="native"))
        for x, y in zip(results, run(reference.dense_scan), strict=True):
            np.testing.assert_allclose(x, y, rtol=0, atol=1e-5 * np.abs(y).max())


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("dtype", "rows", "steps", "sizes"),
    [
        ("float32", 8, 131, (64, 24, 32)),
        ("float32", 3, 64, (5, 17, 3)),
        ("float64", 2, 7, (4, 3, 9)),
    ],
)
def test_projected_scan_equals_products_around_the_oracle(
    dtype: str, rows: int, steps: int, sizes: tuple[int, int, int], masked: bool
) -> None:
    inputs, width, outputs = sizes
    with jax.enable_x64(dtype == "float64"):
        rng = np.random.default_rng(0)

        def draw(*shape: int) -> jax.Array:
            return jnp.asarray(rng.standard_normal(shape), dtype)

        a = jax.lax.complex(draw(width), draw(width)) * 0.5
        x, B, C = draw(rows, steps, inputs), draw(inputs, 2 * width), draw(2 * width, outputs)
        h0, dlast = (jax.lax.complex(draw(rows, width), draw(rows, width)) for _ in range(2))
        dy = draw(rows, steps, outputs)
        options = {}
        if masked:
            options["resets"] = jnp.asarray(rng.random((rows, steps)) < 0.2)
            options["lengths"] = jnp.asarray(rng.integers(1, steps + 1, rows)).at[-1].set(0)

        def composed(a, x, B, C, h0):
            driven = x @ B
            b = jax.lax.complex(driven[..., :width], driven[..., width:])
            h, h_last = reference.linear_scan(a, b, h0, **options)
            return jnp.concatenate([h.real, h.imag], -1) @ C, h_last

        def pull(function):
            values, vjp = jax.vjp(function, a, x, B, C, h0)
            return values, vjp((dy, dlast))

        fused = functools.partial(projected_scan, method="native", **options)
        results, wanted = (jax.jit(pull, static_argnums=0)(f) for f in (fused, composed))
        tolerance = 100 * jnp.finfo(dtype).eps
        for got, expected in zip(*map(jax.tree.leaves, (results, wanted)), strict=True):
            assert got.dtype == expected.dtype
            bound = tolerance * np.abs(expected).max()
            np.testing.assert_allclose(got, expected, rtol=0, atol=bound)


def test_projected_scan_refuses_weights_that_do_not_fit() -> None:
    call = functools.partial(projected_scan.__wrapped__, jnp.ones(4, "complex64"))
    x, B, C = jnp.ones((2, 5, 3)), jnp.ones((3, 8)), jnp.ones((8, 3))
    with pytest.raises(ValueError, match=r"^B has shape \(3, 7\), but .* allow \(3, 8\)"):
        call(x, B[:, 1:], C)
    with pytest.raises(ValueError, match=r"^C has shape \(7, 3\), but a allows \(8, E\)"):
        call(x, B, C[1:])
    with pytest.raises(ValueError, match=r"^h0 has shape"):
        call(x, B, C, jnp.ones((3, 4), "complex64"))
