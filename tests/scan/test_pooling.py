"""The scan of quasi-recurrent networks equals its oracle, in one pass and in parts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lru.scan import cpu, pooled_scan, portable, reference
from lru.scan.pooling import GATES

B, T, N = 3, 7, 5

# The oracle would keep what is not finite; here padding and dropped states are finite.
LENGTHS = jnp.array([T, 3, 0])
RESETS = jnp.zeros((B, T), bool).at[0, 2].set(True).at[1, 0].set(True).at[1, 5].set(True)


def draw(seed, *shape, dtype="float32"):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def arrays_for(kind, rows=B, steps=T, width=N, dtype="float32"):
    columns = len(GATES[kind]) * width
    return (
        draw(1, rows, steps, columns, dtype=dtype),
        draw(2, columns, dtype=dtype),
        draw(3, rows, width, dtype=dtype),
    )


def pull(scan, arrays, **options):
    """Both results, and the gradients of all arrays for random weights on both."""

    @jax.jit
    def run(arrays):
        values, vjp = jax.vjp(lambda arrays: scan(*arrays, **options), arrays)
        weights = tuple(draw(i, *v.shape, dtype=v.dtype) for i, v in enumerate(values, start=5))
        return values, vjp(weights)

    return run(arrays)


def check_close(results, wanted, factor=50):
    assert jax.tree.structure(results) == jax.tree.structure(wanted)
    for got, expected in zip(*map(jax.tree.leaves, (results, wanted)), strict=True):
        assert got.dtype == expected.dtype
        bound = factor * jnp.finfo(got.dtype).eps * max(1, np.abs(expected).max(initial=0))
        np.testing.assert_allclose(got, expected, rtol=0, atol=bound)


@pytest.fixture
def _elsewhere(monkeypatch, _traced_anew):
    """The program of other platforms than a CPU, on this one."""
    monkeypatch.setattr(
        jax.lax, "platform_dependent", lambda *arrays, cpu, default: default(*arrays)
    )


@pytest.fixture
def _no_compiler(monkeypatch):
    monkeypatch.setattr(cpu, "problem", lambda loops: "no compiler here")


OPTIONS = [{}, {"resets": RESETS}, {"lengths": LENGTHS}, {"resets": RESETS, "lengths": LENGTHS}]
each_option = pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(o) or "plain")


@each_option
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_pass_equals_the_oracle(dtype, options):
    with jax.enable_x64(dtype == "float64"):
        arrays = arrays_for("fo", dtype=dtype)
        results = pull(
            functools.partial(pooled_scan, method="native"), arrays, gates="fo", **options
        )
        check_close(results, pull(reference.pooled_scan, arrays, gates="fo", **options))


@each_option
@pytest.mark.usefixtures("_elsewhere")
def test_the_program_of_other_platforms_equals_the_oracle(options):
    arrays = arrays_for("fo")
    results = pull(functools.partial(pooled_scan, method="native"), arrays, gates="fo", **options)
    check_close(results, pull(reference.pooled_scan, arrays, gates="fo", **options))


@pytest.mark.parametrize("zoneout", ["none", "share", "mask"])
@pytest.mark.parametrize("kind", GATES)
def test_parts_equal_the_oracle(kind, zoneout):
    arrays = arrays_for(kind)
    shares = {"none": 0.0, "share": 0.3, "mask": (draw(4, B, T, N) > 0).astype(jnp.float32)}
    options = {"gates": kind, "zoneout": shares[zoneout], "resets": RESETS, "lengths": LENGTHS}
    results = pull(functools.partial(pooled_scan, method="sequential"), arrays, **options)
    check_close(results, pull(reference.pooled_scan, arrays, **options))


@pytest.mark.usefixtures("_no_compiler")
def test_without_a_compiler_the_parts_take_its_place():
    arrays = arrays_for("fo")
    check_close(
        pull(pooled_scan, arrays, gates="fo", resets=RESETS, lengths=LENGTHS),
        pull(reference.pooled_scan, arrays, gates="fo", resets=RESETS, lengths=LENGTHS),
    )
    with pytest.raises(cpu.NativeUnavailableError, match="no compiler here"):
        pooled_scan(*arrays, gates="fo", method="native")


def calls(**options):
    program = str(jax.make_jaxpr(functools.partial(pooled_scan, **options))(*arrays_for("fo")))
    return program.count("lru_pooling_forward")


def test_one_pass_is_taken_where_there_is_one():
    assert calls(gates="fo") == 1
    assert calls(gates="fo", method="sequential") == 0
    assert calls(gates="fo", zoneout=0.1) == 0
    with portable():
        assert calls(gates="fo") == 0


@pytest.mark.parametrize(
    ("rows", "steps", "width"), [(1, 1, 1), (1, 300, 70), (2, 3, 1100), (9, 2, 33)]
)
def test_one_pass_of_odd_sizes(rows, steps, width):
    """Widths beside vectors and slices, one row for all cores, sums over many steps."""
    arrays = arrays_for("fo", rows, steps, width)
    check_close(
        pull(functools.partial(pooled_scan, method="native"), arrays, gates="fo"),
        pull(reference.pooled_scan, arrays, gates="fo"),
    )


def test_a_batch_may_be_empty():
    h, last = pooled_scan(*arrays_for("fo", rows=0), gates="fo", method="native")
    assert (h.shape, last.shape) == ((0, T, N), (0, N))


def test_one_pass_under_vmap_with_a_bias_for_each():
    arrays = tuple(jnp.stack([x, 2 * x, -x]) for x in arrays_for("fo"))
    one_pass, oracle = (
        jax.vmap(functools.partial(scan, gates="fo", lengths=LENGTHS, **options))
        for scan, options in ((pooled_scan, {"method": "native"}), (reference.pooled_scan, {}))
    )
    check_close(pull(one_pass, arrays), pull(oracle, arrays))


@pytest.mark.parametrize("method", ["native", "sequential"])
def test_half_precision_is_computed_in_float32(method):
    x, bias, c0 = arrays_for("fo")
    narrow, wide = x.astype(jnp.bfloat16), x.astype(jnp.bfloat16).astype(jnp.float32)
    results = pooled_scan(narrow, bias, c0, gates="fo", method=method)
    assert [r.dtype.name for r in results] == ["float32", "float32"]
    check_close(results, reference.pooled_scan(wide, bias, c0, gates="fo"))


@pytest.mark.parametrize("method", ["native", "sequential"])
def test_padding_may_hold_anything(method):
    arrays = arrays_for("fo")
    mask = (jnp.arange(T) < LENGTHS[:, None])[..., None]
    scan = functools.partial(pooled_scan, method=method)
    clean, spoilt = (
        pull(scan, (jnp.where(mask, arrays[0], hole), *arrays[1:]), gates="fo", lengths=LENGTHS)
        for hole in (0, jnp.nan)
    )
    jax.tree.map(np.testing.assert_array_equal, spoilt, clean)
    assert not np.any(np.where(mask, 0, clean[0][0]))
    assert not np.any(np.where(mask, 0, clean[1][0][0]))


def test_one_pass_of_extreme_inputs():
    """Gates saturate without a value that is not finite, and NaN stays NaN."""
    values = jnp.array([-1e4, -90.0, -88.0, -20.0, -0.6, -1e-3, 0.0, 0.6, 20.0, 88.0, 90.0, 1e4])
    z, f, o = (jnp.ravel(g) for g in jnp.meshgrid(values, values, values))
    arrays = (jnp.concatenate([z, f, o])[None, None], jnp.zeros(3 * z.size), jnp.ones((1, z.size)))
    results = pull(functools.partial(pooled_scan, method="native"), arrays, gates="fo")
    check_close(results, pull(reference.pooled_scan, arrays, gates="fo"), factor=8)
    spoilt = pooled_scan(arrays[0] * jnp.nan, *arrays[1:], gates="fo", method="native")
    assert all(np.all(np.isnan(x)) for x in spoilt)


def test_what_does_not_fit_is_refused():
    scan = functools.partial(pooled_scan.__wrapped__, gates="fo")
    x, bias, c0 = arrays_for("fo")
    with pytest.raises(ValueError, match=r"^gates must be one of f, fo, ifo, got 'of'"):
        pooled_scan(x, bias, c0, gates="of")
    with pytest.raises(
        ValueError, match=r"^x has shape \(3, 7, 14\), but c0 .* allows \(3, T, 15\)"
    ):
        scan(x[..., 1:], bias, c0)
    with pytest.raises(ValueError, match=r"^x has shape .* but c0 \(2, 5\) allows \(2, T, 15\)"):
        scan(x, bias, c0[1:])
    with pytest.raises(ValueError, match=r"^bias has shape \(14,\), but .* allows \(15,\)"):
        scan(x, bias[1:], c0)
    with pytest.raises(ValueError, match=r"^lengths has shape \(2,\)"):
        scan(x, bias, c0, lengths=LENGTHS[1:])


def test_the_one_pass_has_second_derivatives() -> None:
    keys = jax.random.split(jax.random.key(0), 6)
    shapes = ((2, 7, 12), (12,), (2, 4))
    arrays, directions = (
        tuple(jax.random.normal(k, shape) for k, shape in zip(three, shapes, strict=True))
        for three in (keys[:3], keys[3:])
    )
    marks = {"lengths": jnp.array([7, 3]), "resets": jnp.zeros((2, 7), bool).at[0, 4].set(True)}

    def change(scan_function) -> tuple:
        def loss(arrays: tuple) -> jax.Array:
            h, last = scan_function(*arrays, gates="fo", **marks)
            return jnp.sum(jnp.sin(h)) + jnp.sum(last**3)

        return jax.vjp(jax.grad(loss), arrays)[1](directions)[0]

    one_pass = jax.jit(lambda: change(functools.partial(pooled_scan, method="native")))()
    expected = jax.jit(lambda: change(reference.pooled_scan))()
    for x, y in zip(one_pass, expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=2e-5 * np.abs(y).max())


@pytest.mark.parametrize("method", ["native", "sequential"])
def test_one_wide_argument_widens_the_states(method: str) -> None:
    with jax.enable_x64(True):
        for wide in range(3):
            arrays = (jnp.ones((2, 5, 12)), jnp.ones(12), jnp.ones((2, 4)))
            types = ["float64" if i == wide else "float32" for i in range(3)]
            given = (array.astype(dtype) for array, dtype in zip(arrays, types, strict=True))
            h, last = pooled_scan(*given, gates="fo", method=method)
            assert (h.dtype, last.dtype) == (jnp.float64, jnp.float64)
