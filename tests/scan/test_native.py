"""The loops in C++: how they are compiled, what happens where they cannot be, and odd sizes."""

import functools
import os
import stat
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from lru.scan import cpu, dense_scan, linear_scan, projected_scan, reference
from lru.scan.parts import join


@pytest.fixture
def fresh_folder(monkeypatch, tmp_path):
    """An empty folder for compiled loops, and no memory of earlier attempts."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cpu.problem.cache_clear()
    yield tmp_path / "lru"
    cpu.problem.cache_clear()


@pytest.fixture
def runs(monkeypatch, tmp_path_factory):
    """The list of runs of a compiler of two words, which copies what was compiled before."""
    library = cpu._compiled(cpu._compiler(), "linear")
    folder = tmp_path_factory.mktemp("compiler")
    (folder / "c++.sh").write_text(
        f'echo "$@" >> {folder}/runs; for last; do :; done\n'
        f'test "$last" = --version || cp {library} "$last"\n'
    )
    monkeypatch.setenv("CXX", f"sh {folder}/c++.sh")
    return folder / "runs"


@pytest.mark.parametrize(
    ("compiler", "message"),
    [
        ("/no/such/compiler", "cannot be compiled: /no/such/compiler says"),
        ("false", "false says .*non-zero exit status"),
        ("sh -c 'echo >&2; exit 1'", "sh says .*non-zero exit status"),
    ],
)
@pytest.mark.usefixtures("fresh_folder")
def test_a_compiler_that_fails_is_named(compiler: str, message: str, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("CXX", compiler)
    with pytest.raises(cpu.NativeUnavailableError, match=message):
        linear_scan(jnp.ones(2), jnp.ones((1, 3, 2)), method="native")
    assert not list(tmp_path.rglob("*.so"))


@pytest.mark.usefixtures("fresh_folder")
def test_no_compiler_is_said_in_a_sentence(monkeypatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    assert cpu.problem("linear") == (
        "scan method 'native' needs a C++ compiler, and none was found (c++, g++ or $CXX)"
    )


def test_no_home_is_said_in_a_sentence(monkeypatch, runs, fresh_folder) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 987654)
    assert cpu.problem("linear") == (
        "scan method 'native' needs a folder for what it compiles, and neither $XDG_CACHE_HOME "
        "nor a home is known"
    )


def test_a_library_is_compiled_once_and_only_its_owner_may_write(runs, fresh_folder) -> None:
    library = cpu._compiled(cpu._compiler(), "linear")
    assert list(fresh_folder.iterdir()) == [library]
    assert not stat.S_IMODE(os.stat(library.parent).st_mode) & 0o077
    assert cpu._compiled(cpu._compiler(), "linear") == library
    calls = [line.split()[-1] for line in runs.read_text().splitlines()]
    assert [call == "--version" for call in calls] == [True, False, True]


def test_a_damaged_library_is_compiled_once_more(runs, fresh_folder, caplog) -> None:
    library = cpu._compiled(cpu._compiler(), "linear")
    library.write_bytes(b"half of it")
    assert cpu._library(cpu._compiler(), "linear").lru_linear_forward
    assert "cannot be loaded and is compiled once more" in caplog.text


def test_a_library_that_cannot_be_loaded_is_compiled_twice_at_most(runs, fresh_folder) -> None:
    script = runs.with_name("c++.sh")
    script.write_text(script.read_text() + 'test "$last" = --version || echo > "$last"\n')
    with pytest.raises(cpu.NativeUnavailableError, match="cannot be loaded: "):
        cpu._library(cpu._compiler(), "linear")
    assert len(runs.read_text().splitlines()) == 4


@pytest.mark.parametrize("whose", ["of another", "open to others"])
def test_code_that_others_may_have_written_is_not_loaded(
    whose: str, runs, fresh_folder, monkeypatch
) -> None:
    library = cpu._compiled(cpu._compiler(), "linear")
    if whose == "of another":
        monkeypatch.setattr(os, "geteuid", lambda: 987654)
    else:
        fresh_folder.chmod(0o770)
    assert (cpu.problem("linear") or "").startswith(
        f"scan method 'native' loads no code from {fresh_folder}"
    )
    assert library.exists()


@pytest.mark.parametrize("varying", [False, True])
@pytest.mark.parametrize(
    ("kinds", "rows", "steps", "width"),
    [
        ((jnp.float32, jnp.float32), 3, 33, 85),
        ((jnp.float32, jnp.complex64), 1, 40, 133),
        ((jnp.complex64, jnp.complex64), 2, 17, 77),
        ((jnp.complex64, jnp.complex64), 1, 530, 133),
    ],
)
def test_elementwise_scans_of_odd_sizes(
    kinds: tuple, rows: int, steps: int, width: int, varying: bool
) -> None:
    """Columns beside whole vectors and blocks of them, slices, steps beside tiles and sums."""
    keys = jax.random.split(jax.random.key(0), 4)
    b, g = (jax.random.normal(key, (rows, steps, width), kinds[1]) for key in keys[:2])
    a = 0.6 * jax.random.normal(keys[2], (rows, steps, width) if varying else (width,), kinds[0])
    a = a / jnp.maximum(1, jnp.abs(a))
    resets = jax.random.uniform(keys[3], (rows, steps)) < 0.1
    for options in ({"reverse": True}, {"resets": resets}):

        @functools.partial(jax.jit, static_argnums=0)
        def run(scan, options=options):
            h, pull = jax.vjp(lambda a, b, h0: scan(a, b, h0, **options)[0], a, b, b[:, 0])
            return h, *pull(g)

        results = run(functools.partial(linear_scan, method="native"))
        for x, y in zip(results, run(reference.linear_scan), strict=True):
            np.testing.assert_allclose(x, y, rtol=0, atol=1e-5 * np.abs(y).max())


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


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("dtype", "rows", "steps", "sizes", "blocks"),
    [
        ("float32", 8, 131, (64, 24, 32), False),
        # Fewer rows than threads, of which there are eight at least: one for each device.
        ("float32", 1, 523, (64, 128, 64), False),
        ("float32", 3, 397, (96, 130, 33), False),
        ("float32", 3, 64, (5, 17, 3), False),
        ("float32", 3, 197, (5, 130, 33), True),
        ("float64", 2, 7, (4, 3, 9), False),
        ("float64", 2, 7, (4, 3, 9), True),
    ],
)
def test_projected_scan_equals_products_around_the_oracle(
    dtype: str,
    rows: int,
    steps: int,
    sizes: tuple[int, int, int],
    blocks: bool,
    masked: bool,
    reverse: bool,
) -> None:
    inputs, width, outputs = sizes
    with jax.enable_x64(dtype == "float64"):
        rng = np.random.default_rng(0)

        def draw(*shape: int) -> jax.Array:
            return jnp.asarray(rng.standard_normal(shape), dtype)

        a = jax.lax.complex(draw(width), draw(width)) * 0.5
        a = a / jnp.maximum(1, jnp.abs(a))
        if blocks:
            a = jnp.stack([0.5 * a.real, a.real, a.imag, -0.3 * a.real]).reshape(2, 2, width)
        x, B, C = draw(rows, steps, inputs), draw(inputs, 2 * width), draw(2 * width, outputs)
        h0, dlast = (
            draw(rows, 2, width)
            if blocks
            else jax.lax.complex(draw(rows, width), draw(rows, width))
            for _ in range(2)
        )
        dy = draw(rows, steps, outputs)
        options: dict[str, Any] = {"reverse": reverse}
        if masked:
            options["resets"] = jnp.asarray(rng.random((rows, steps)) < 0.2)
        # Backwards, a state and lengths together are no case of the loops in C++.
        if masked and not reverse:
            options["lengths"] = jnp.asarray(rng.integers(1, steps + 1, rows)).at[-1].set(0)

        def composed(a, x, B, C, h0):
            driven = x @ B
            if blocks:
                b = driven.reshape(rows, steps, 2, width)
                h, h_last = reference.block_scan(a, b, h0, **options)
                return h.reshape(rows, steps, 2 * width) @ C, h_last
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


@pytest.mark.parametrize("reverse", [False, True])
def test_a_projected_row_alone_is_the_row_of_a_batch_to_the_bit(reverse: bool) -> None:
    """Alone its blocks are dealt out to threads, in the batch the rows."""
    rows, steps, inputs, width, outputs = 9, 1031, 64, 64, 80
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> jax.Array:
        return jnp.asarray(rng.standard_normal(shape), "float32")

    a = jax.lax.complex(draw(width), draw(width))
    a = 0.99 * a / jnp.abs(a)
    B, C = draw(inputs, 2 * width), draw(2 * width, outputs)
    x, dy = draw(rows, steps, inputs), draw(rows, steps, outputs)
    h0, dlast = (jax.lax.complex(draw(rows, width), draw(rows, width)) for _ in range(2))
    resets = jnp.asarray(rng.random((rows, steps)) < 0.01)

    @jax.jit
    def run(*by_row: jax.Array) -> tuple:
        x, h0, resets, dy, dlast = by_row

        def outputs_of(x: jax.Array, h0: jax.Array, B: jax.Array, C: jax.Array) -> tuple:
            options: dict[str, Any] = {"resets": resets, "reverse": reverse, "method": "native"}
            return projected_scan(a, x, B, C, h0, **options)

        values, pull = jax.vjp(outputs_of, x, h0, B, C)
        dx, dh0, *of_weights = pull((dy, dlast))
        return (*values, dx, dh0), of_weights

    by_row = (x, h0, resets, dy, dlast)
    together, _ = run(*by_row)
    for row in (0, rows - 1):
        alone, of_weights = run(*(z[row : row + 1] for z in by_row))
        for one, all_rows in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one[0], all_rows[row])
        # Sums belong to blocks, whichever threads took them.
        for _ in range(5):
            again = run(*(z[row : row + 1] for z in by_row))[1]
            jax.tree.map(np.testing.assert_array_equal, again, of_weights)


@functools.partial(jax.jit, static_argnums=0)
@functools.partial(jax.value_and_grad, argnums=1, has_aux=True)
def with_gradients(method: str, arrays: dict) -> tuple:
    y, h_last = projected_scan(**arrays, method=method)
    return jnp.sum(y) + jnp.sum(jnp.abs(h_last) ** 2), (y, h_last)


@pytest.mark.parametrize("method", ["native", "sequential"])
@pytest.mark.parametrize(
    ("wide", "dtype", "state"),
    [
        ({}, "float32", "complex64"),
        ({"a": "complex128"}, "float64", "complex128"),
        ({"x": "float64"}, "float64", "complex128"),
        ({"h0": "complex128"}, "float64", "complex128"),
        ({"x": "bfloat16", "B": "bfloat16", "C": "bfloat16"}, "float32", "complex64"),
        ({"a": "float32"}, "float32", "complex64"),
        ({"a": "float32", "h0": "float32"}, "float32", "complex64"),
    ],
    ids=str,
)
def test_projected_scan_brings_all_arrays_to_one_type(
    wide: dict[str, str], dtype: str, state: str, method: str
) -> None:
    shapes = {"a": (4,), "x": (2, 9, 3), "B": (3, 8), "C": (8, 5), "h0": (2, 4)}
    types = dict.fromkeys(shapes, "float32") | {"a": "complex64", "h0": "complex64"} | wide
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        arrays = {k: jnp.asarray(rng.random(shapes[k]), types[k]) for k in shapes}

        (_, (y, h_last)), gradients = with_gradients(method, arrays)
        assert (y.dtype, h_last.dtype) == (dtype, state)
        assert {k: x.dtype for k, x in gradients.items()} == types
        exact = {
            k: x.astype("complex128" if k in ("a", "h0") else "float64") for k, x in arrays.items()
        }
        (_, (wanted, _)), exact_gradients = with_gradients("sequential", exact)
    np.testing.assert_allclose(y, wanted, rtol=1e-5)
    for k, gradient in gradients.items():
        expected = np.asarray(exact_gradients[k])
        expected = expected if jnp.iscomplexobj(gradient) else expected.real
        tolerance = 4 * float(jnp.finfo(types[k]).eps) if types[k] == "bfloat16" else 1e-5
        actual, bound = np.asarray(gradient, expected.dtype), tolerance * np.abs(expected).max()
        np.testing.assert_allclose(actual, expected, rtol=0, atol=bound)


def test_projected_scan_has_second_derivatives() -> None:
    rng = np.random.default_rng(0)
    shapes = {"a": (2, 4), "x": (2, 9, 3), "B": (3, 8), "C": (8, 5), "h0": (2, 2, 4)}
    arrays, directions = (
        {k: jnp.asarray(rng.normal(0, 0.5, shape), "float32") for k, shape in shapes.items()}
        for _ in range(2)
    )
    marks = {"lengths": jnp.array([9, 5]), "resets": jnp.asarray(rng.random((2, 9)) < 0.2)}

    @functools.partial(jax.jit, static_argnums=0)
    def changes(method: str, arrays: dict) -> tuple:
        def loss(arrays: dict) -> jax.Array:
            pairs = {k: join(arrays[k]) for k in ("a", "h0")}
            y, h_last = projected_scan(**{**arrays, **pairs}, **marks, method=method)
            return jnp.sum(jnp.sin(y)) + jnp.sum(jnp.abs(h_last) ** 4)

        forwards = jax.jvp(jax.grad(loss), (arrays,), (directions,))[1]
        return forwards, jax.vjp(jax.grad(loss), arrays)[1](directions)[0]

    result, wanted = changes("native", arrays), changes("sequential", arrays)
    for x, y in zip(jax.tree.leaves(result), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=2e-5 * np.abs(y).max())


@pytest.mark.parametrize(
    ("mapped", "rows", "steps", "sizes"),
    [(mapped, 2, 5, (3, 4, 6)) for mapped in ("a", "x", "BC", "h0", "aBC", "axBCh0")]
    # Blocks of one row of six problems are dealt out.
    + [("aBC", 1, 331, (100, 128, 100))],
)
def test_projected_scan_shares_what_is_not_mapped(
    mapped: str, rows: int, steps: int, sizes: tuple[int, int, int]
) -> None:
    """One axis of some arguments, and within it another of others."""
    inputs, width, outputs = sizes
    shapes = {"a": (width,), "x": (rows, steps, inputs), "B": (inputs, 2 * width)}
    shapes |= {"C": (2 * width, outputs), "h0": (rows, width)}
    rng = np.random.default_rng(0)
    outer = [name for name in shapes if name in mapped]
    inner = ["x"] if "x" not in outer else ["C"]

    def draw(name: str, shape: tuple[int, ...]) -> jax.Array:
        shape = (2,) * (name in inner) + (3,) * (name in outer) + shape
        values = rng.normal(0, 0.2, (2, *shape))
        return jnp.asarray(values[0] + 1j * values[1] if name in ("a", "h0") else values[0])

    arrays = [draw(name, shape) for name, shape in shapes.items()]
    resets = jnp.zeros((rows, steps), bool).at[0, 2].set(True)
    marks = {"lengths": jnp.array([steps, 3])[:rows], "resets": resets}

    def both(method: str, *arrays: jax.Array) -> tuple:
        (y, last), pull = jax.vjp(lambda *x: projected_scan(*x, **marks, method=method), *arrays)
        return y, last, pull((jnp.sin(y), jnp.conj(last)))

    def run(method: str) -> tuple:
        within = [0 if name in outer else None for name in shapes]
        around = [0 if name in inner else None for name in shapes]
        mapped_once = jax.vmap(functools.partial(both, method), within)
        return jax.jit(jax.vmap(mapped_once, around))(*arrays)

    for result, wanted in zip(
        *map(jax.tree.leaves, (run("native"), run("sequential"))), strict=True
    ):
        np.testing.assert_allclose(result, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def test_projected_scan_refuses_weights_that_do_not_fit() -> None:
    call = functools.partial(projected_scan.__wrapped__, jnp.ones(4, "complex64"))
    x, B, C = jnp.ones((2, 5, 3)), jnp.ones((3, 8)), jnp.ones((8, 3))
    with pytest.raises(ValueError, match=r"^B has shape \(3, 7\), but .* allow \(3, 8\)"):
        call(x, B[:, 1:], C)
    with pytest.raises(ValueError, match=r"^C has shape \(7, 3\), but a allows \(8, E\)"):
        call(x, B, C[1:])
    with pytest.raises(ValueError, match=r"^h0 has shape"):
        call(x, B, C, jnp.ones((3, 4), "complex64"))
    with pytest.raises(ValueError, match=r"^x has shape \(2, 0, 3\), but \[B, T, D\]"):
        call(x[:, :0], B, C)
    with pytest.raises(ValueError, match=r"^C has dtype complex64, but only real floats"):
        call(x, B, C.astype("complex64"))
    with pytest.raises(ValueError, match=r"^a has shape \(2, 4\), but \[N\]"):
        projected_scan.__wrapped__(jnp.ones((2, 4), "complex64"), x, B, C)


# Arrays of a small problem for every loop, by the names that its errors use.
ROWS, STEPS, PARTS, WIDTH, IN, OUT = 2, 3, 2, 4, 5, 6
SEQUENCE, START, MASK = (ROWS, STEPS, PARTS, WIDTH), (ROWS, PARTS, WIDTH), (ROWS, STEPS)
FLAT, FLAT_START, MATRIX = (ROWS, STEPS, WIDTH), (ROWS, WIDTH), (WIDTH, WIDTH)
PROJECTED = {
    "a": (PARTS, WIDTH),
    "x": (ROWS, STEPS, IN),
    "B": (IN, PARTS * WIDTH),
    "C": (PARTS * WIDTH, OUT),
    "h0": START,
    "keep": MASK,
}
LOOPS = {
    "lru_linear_forward": (
        {"a": (PARTS, WIDTH), "b": SEQUENCE, "h0": START, "keep": MASK},
        {"h": SEQUENCE},
    ),
    "lru_linear_backward": (
        {"a": SEQUENCE, "g": SEQUENCE, "h": SEQUENCE, "h0": START, "keep": MASK},
        {"db": SEQUENCE, "da": SEQUENCE},
    ),
    "lru_dense_forward": (
        {"A": MATRIX, "b": FLAT, "h0": FLAT_START, "keep": MASK},
        {"h": FLAT},
    ),
    "lru_dense_backward": (
        {"A": MATRIX, "g": FLAT, "h": FLAT, "h0": FLAT_START, "keep": MASK},
        {"db": FLAT, "dA": MATRIX},
    ),
    "lru_projected_forward": (PROJECTED, {"y": (ROWS, STEPS, OUT), "h": SEQUENCE}),
    "lru_projected_backward": (
        {
            **PROJECTED,
            "last": (ROWS,),
            "h": SEQUENCE,
            "dy": (ROWS, STEPS, OUT),
            "dlast": START,
        },
        {f"d{name}": PROJECTED[name] for name in ("a", "x", "B", "C", "h0")},
    ),
}


OPTIONS = {
    "lru_linear_forward": {"paired": True},
    "lru_linear_backward": {"paired": True},
    "lru_gated_forward": {"cell": "lstm"},
    "lru_gated_backward": {"cell": "lstm"},
    "lru_elementwise_forward": {"cell": "sru"},
    "lru_elementwise_backward": {"cell": "sru"},
}
TARGETS = [target for loops in cpu.LOOPS for target in cpu.targets(loops)]
PLAIN = {
    "lru_linear_forward": (
        {"a": (WIDTH,), "b": FLAT, "h0": FLAT_START, "keep": MASK},
        {"h": FLAT},
    ),
    "lru_linear_backward": (
        {"a": FLAT, "g": FLAT, "h": FLAT, "h0": FLAT_START, "keep": MASK},
        {"db": FLAT, "da": FLAT},
    ),
}
TYPES = {"keep": "bool", "valid": "bool", "last": "int32"}
POOLED = {
    "x": (ROWS * STEPS, 3 * WIDTH),
    "bias": (3 * WIDTH,),
    "c0": FLAT_START,
    "keep": MASK,
    "valid": MASK,
}
LOOPS["lru_pooling_forward"] = (POOLED, {"same_x": POOLED["x"], "c": FLAT, "h": FLAT})
LOOPS["lru_pooling_backward"] = (
    {**POOLED, "c": FLAT, "dh": FLAT, "dlast": FLAT_START},
    {"dx": POOLED["x"], "dbias": (ROWS, 3 * WIDTH), "dc0": FLAT_START},
)
LSTM = {"W": (WIDTH, 4 * WIDTH), "keep": MASK, "valid": MASK}
STATES = {"h0": FLAT_START, "c0": FLAT_START}
OVER_TIME = dict.fromkeys(("h", "c", "i", "f", "g", "o"), FLAT)
LOOPS["lru_gated_forward"] = (
    {"x": (ROWS, STEPS, 4 * WIDTH), **LSTM, **STATES},
    {"h_last": FLAT_START, "c_last": FLAT_START, **OVER_TIME},
)
LOOPS["lru_gated_backward"] = (
    {**LSTM, "dh": FLAT, **STATES, **OVER_TIME, "dh_last": FLAT_START, "dc_last": FLAT_START},
    {"dx": (ROWS, STEPS, 4 * WIDTH), "dW": LSTM["W"], "dh0": FLAT_START, "dc0": FLAT_START},
)
SRU = {
    "x": (ROWS, STEPS, 2 * WIDTH),
    "u": (WIDTH,),
    "h0": FLAT_START,
    "keep": MASK,
    "valid": MASK,
}
LOOPS["lru_elementwise_forward"] = (SRU, {"h": FLAT})
LOOPS["lru_elementwise_backward"] = (
    {**SRU, "h": FLAT, "dh": FLAT},
    {"dx": SRU["x"], "du": FLAT_START, "dh0": FLAT_START},
)


def run_loop(target: str, loop: tuple[dict, dict], options: dict, changes: dict) -> None:
    arguments, results = loop

    def array(name: str, shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
        shape, dtype = changes.get(name, (shape, TYPES.get(name, "float32")))
        return jax.ShapeDtypeStruct(shape, dtype)

    arrays = [jnp.zeros(x.shape, x.dtype) for x in (array(*item) for item in arguments.items())]
    outputs = tuple(array(*item) for item in results.items())
    jax.block_until_ready(cpu.call(target, outputs, *arrays, reverse=False, **options))


@pytest.mark.parametrize(
    ("target", "loop", "options"),
    [
        *((target, LOOPS[target], OPTIONS.get(target, {})) for target in TARGETS),
        *((target, loop, {"paired": False}) for target, loop in PLAIN.items()),
    ],
    ids=[*TARGETS, *(f"{target}_plain" for target in PLAIN)],
)
def test_a_loop_refuses_arrays_that_do_not_fit_each_other(
    target: str, loop: tuple[dict, dict], options: dict
) -> None:
    """Nothing in Python gives it such; what is read and written beyond an array ends a process."""
    cpu.require(target.split("_")[1])
    run_loop(target, loop, options, {})
    arguments, results = loop
    with jax.enable_x64(True):
        for name, shape in (*arguments.items(), *results.items()):
            for other in (
                ((*shape[:-1], shape[-1] + 1), "float32"),
                (shape[1:], "float32"),
                ((2, *shape), "float32"),
                (shape, "float64"),
                (shape, "int32"),
            ):
                if name in TYPES:
                    other = (other[0], TYPES[name] if other[1] == "float32" else "float64")
                with pytest.raises(jax.errors.JaxRuntimeError, match=r"INVALID_ARGUMENT"):
                    run_loop(target, loop, options, {name: other})


@pytest.mark.parametrize("name", ["a", "h0", "h", "db", "da"])
def test_a_loop_refuses_complex_arrays_of_other_types(name: str) -> None:
    cpu.require("linear")
    target = "lru_linear_backward"
    arguments, results = PLAIN[target]
    types = {name: (shape, "complex64") for name, shape in {**arguments, **results}.items()}
    types |= {"keep": (MASK, "bool")}
    real_a = {"a": (FLAT, "float32"), "da": (FLAT, "float32")}
    for good in ({}, real_a):
        run_loop(target, PLAIN[target], {"paired": False}, types | good)
    with jax.enable_x64(True):
        for wrong in ("float64", "complex128", *(["float32"] if name != "a" else [])):
            changes = types | {name: (types[name][0], wrong)}
            with pytest.raises(jax.errors.JaxRuntimeError, match=r"INVALID_ARGUMENT"):
                run_loop(target, PLAIN[target], {"paired": False}, changes)


@pytest.mark.parametrize(
    ("kind_of_a", "kind_of_b", "varying"),
    [
        ("complex64", "complex64", False),
        ("complex64", "complex64", True),
        ("float32", "complex64", False),
        ("float32", "complex64", True),
        ("float32", "float32", True),
        ("complex128", "complex128", False),
    ],
)
@pytest.mark.parametrize("donate", [False, True])
def test_plain_arrays_are_not_copied(
    kind_of_a: str, kind_of_b: str, varying: bool, donate: bool
) -> None:
    """Neither those that live on nor those that are given away need memory beside the results."""

    def both(a: jax.Array, b: jax.Array, g: jax.Array) -> tuple:
        scan = functools.partial(linear_scan, method="native", donate=donate)
        h, pull = jax.vjp(lambda a, b: scan(a, b)[0], a, b)
        da, db = pull(g)
        # JAX gives a donated array to the first result of its shape.
        return h, db, da

    with jax.enable_x64(kind_of_b == "complex128"):
        b = jax.ShapeDtypeStruct((4, 512, 64), kind_of_b)
        a = jax.ShapeDtypeStruct(b.shape if varying else (64,), kind_of_a)
        program = jax.jit(both, donate_argnums=(1, 2) if donate else ())
        compiled = program.lower(a, b, b).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 0.05 * b.size * b.dtype.itemsize
    text = compiled.as_text() or ""
    whole = f"[{','.join(map(str, b.shape))}]"
    (entry,) = text.split("ENTRY")[1:]
    passes = [line for line in entry.splitlines() if whole in line.split("(")[0]]
    names = ("parameter", "custom-call", "get-tuple-element", "tuple", "bitcast")
    assert not [line for line in passes if not any(f" {name}(" in line for name in names)]


def test_rows_stay_on_their_devices_within_shard_map() -> None:
    mesh = jax.make_mesh((4,), ("rows",), (AxisType.Auto,))
    rows = PartitionSpec("rows")
    keys = jax.random.split(jax.random.key(0), 2)
    a, b = jax.random.normal(keys[0], (5,)), jax.random.normal(keys[1], (8, 6, 5))

    def solve(a: jax.Array, b: jax.Array) -> jax.Array:
        return linear_scan(a, b, method="native")[0]

    split = jax.jit(
        jax.shard_map(
            solve, mesh=mesh, in_specs=(PartitionSpec(), rows), out_specs=rows, check_vma=False
        )
    )
    h = split(a, jax.device_put(b, NamedSharding(mesh, rows)))
    assert h.sharding.is_equivalent_to(NamedSharding(mesh, rows), 3)
    np.testing.assert_array_equal(h, jax.jit(solve)(a, b))
