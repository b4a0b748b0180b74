"""Time over 8 devices: any length, any inner method, which meshes, and what is sent between them.

That each call of the scan equals the oracle is in `test_law.py`, over all devices as well.
"""

import inspect
import re
from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from lru import scan
from lru.scan import LINEAR_METHODS, reference, sharded

B, N = 4, 3
# Most of the time of these tests is compiling.
# Below the annotations that tests enforce, so that the messages of the function show.
linear_scan = inspect.unwrap(scan.linear_scan)
split_over_time = partial(linear_scan, method="sharded")
time_alone = jax.make_mesh((8,), ("seq",), (AxisType.Auto,))
batch_and_time = jax.make_mesh((2, 4), ("batch", "seq"), (AxisType.Auto,) * 2)


@pytest.fixture
def name(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A name in the registry for the length of one test."""
    monkeypatch.setattr(LINEAR_METHODS, "_entries", {**LINEAR_METHODS})
    return "mine"


def random(seed: int, *shape: int) -> jax.Array:
    real, imaginary = jax.random.normal(jax.random.key(seed), (2, *shape))
    return real + 1j * imaginary


def problem(steps: int, varying: bool) -> tuple:
    a = random(1, *((B, steps, N) if varying else (N,))) * 0.4
    return a, random(2, B, steps, N), random(3, B, N)


def pull(scan_function: Callable, arrays: tuple, **options) -> tuple:
    """The outputs of a scan, and the gradients of arrays for random weights on h and h_last."""
    values, gradients = jax.vjp(lambda *x: scan_function(*x, **options), *arrays)
    return values, gradients(tuple(random(4, *x.shape) for x in values))


def check_close(result: tuple, expected: tuple) -> None:
    for x, y in zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True):
        allowed = 50 * np.finfo(np.float32).eps
        np.testing.assert_allclose(x, y, rtol=allowed, atol=allowed * float(abs(y).max()))


def check_equals_the_oracle(scan_function: Callable, steps: int) -> None:
    """In both directions, for constant and varying factors, with all that a call can have."""
    options = {
        "resets": jax.random.bernoulli(jax.random.key(5), 0.1, (B, steps)),
        "lengths": jnp.array([steps, steps // 2, 0, 1]),
    }

    def run(of: Callable) -> list:
        problems = [(problem(steps, varying), varying) for varying in (False, True)]
        return [pull(of, arrays, reverse=reverse, **options) for arrays, reverse in problems]

    result, expected = (
        jax.jit(lambda of=of: run(of))() for of in (scan_function, reference.linear_scan)
    )
    check_close(result, expected)


def exchanges(run: Callable, *arguments: jax.Array) -> list[tuple[str, int]]:
    """What a compiled program sends: kinds, and numbers in the results."""
    text = jax.jit(run).lower(*arguments).compile().as_text()
    assert text is not None
    kinds = "all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter"
    return [
        (kind, sum(size(shape) for shape in re.findall(r"\[([\d,]*)\]", results)))
        for results, kind in re.findall(rf"= (.*?) ({kinds})(?:-start)?\(", text)
    ]


def size(shape: str) -> int:
    return int(np.prod([int(n) for n in shape.split(",") if n]))


@pytest.mark.parametrize("steps", [1, 61, 64])
def test_any_length_equals_the_oracle(steps: int) -> None:
    with jax.set_mesh(time_alone):
        check_equals_the_oracle(split_over_time, steps)


# Of those that keep the law, one with the gradient rule of all and one with that of JAX.
@pytest.mark.parametrize("inner", ["native", "associative"])
def test_any_inner_method_equals_the_oracle(inner: str, name: str) -> None:
    LINEAR_METHODS.register(name)(sharded.method(mesh=time_alone, inner=inner))
    check_equals_the_oracle(partial(linear_scan, method=name), 61)


def test_one_device_is_enough(name: str) -> None:
    alone = Mesh(np.array(jax.devices()[:1]), ("when",))
    LINEAR_METHODS.register(name)(sharded.method(mesh=alone, axis="when"))
    check_equals_the_oracle(partial(linear_scan, method=name), 7)


def test_all_devices_take_part_where_there_is_no_mesh() -> None:
    h, _ = jax.jit(split_over_time)(jnp.ones(N), jnp.ones((B, 64, N)))
    assert len(h.sharding.device_set) == 8
    assert {shard.data.shape for shard in h.addressable_shards} == {(B, 8, N)}


def test_states_are_gathered_once_in_each_direction() -> None:
    a, b, h0 = problem(1024, varying=False)
    b = jax.device_put(b, NamedSharding(time_alone, PartitionSpec(None, "seq")))
    states = 8 * B * 2 * N
    with jax.set_mesh(time_alone):
        assert exchanges(lambda *x: split_over_time(*x)[0], a, b, h0) == [("all-gather", states)]
        both = exchanges(lambda *x: pull(split_over_time, x), a, b, h0)
    assert [sent for sent in both if sent[0] == "all-gather"] == [("all-gather", states)] * 2
    # What else is sent: h_last, which one device has, and sums over devices of gradients.
    assert max(numbers for _, numbers in both) == states


def test_an_odd_length_sends_no_more() -> None:
    a, b, h0 = problem(1021, varying=True)

    def run(a: jax.Array, b: jax.Array, h0: jax.Array) -> jax.Array:
        h, _ = split_over_time(a, b, h0, reverse=True)
        return jnp.sum(jnp.abs(h))

    with jax.set_mesh(time_alone):
        sent = exchanges(jax.value_and_grad(run, 2), a, b, h0)
    assert max(numbers for _, numbers in sent) == 8 * B * 5 * N


def test_another_axis_splits_the_batch() -> None:
    """With gradients as on one device, and no row sent to devices that have others."""
    arrays = problem(64, varying=False)
    rows = NamedSharding(batch_and_time, PartitionSpec("batch"))
    steps = NamedSharding(batch_and_time, PartitionSpec("batch", "seq"))
    a, b, h0 = (arrays[0], jax.device_put(arrays[1], steps), jax.device_put(arrays[2], rows))
    with jax.set_mesh(batch_and_time):
        run = jax.jit(lambda *x: pull(split_over_time, x))
        result = run(a, b, h0)
        sent = exchanges(lambda *x: split_over_time(*x)[0], a, b, h0)
    (h, _), (_, db, _) = result
    assert h.sharding.is_equivalent_to(steps, 3)
    assert db.sharding.is_equivalent_to(steps, 3)
    assert sent == [("all-reduce", 4 * B // 2 * 2 * N)]
    check_close(result, jax.jit(lambda *x: pull(reference.linear_scan, x))(*arrays))


def test_products_that_overflow_leave_finite_states_and_gradients() -> None:
    """Where nothing has come yet there is nothing to grow."""
    a, time = 1000 * random(1, N), jnp.arange(256)[:, None]
    b = jnp.where(time >= 253, random(2, B, 256, N), 0)
    g = jnp.where(time < 3, random(3, B, 256, N), 0)

    def run(scan_function: Callable) -> tuple:
        h, gradients = jax.vjp(lambda a, b: scan_function(a, b)[0], a, b)
        return h, gradients(g)

    expected = jax.jit(lambda: run(reference.linear_scan))()
    assert all(jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(expected))
    check_close(jax.jit(lambda: run(split_over_time))(), expected)


def test_a_mesh_without_the_axis_is_refused() -> None:
    mesh = jax.make_mesh((8,), ("batch",), (AxisType.Auto,))
    with (
        jax.set_mesh(mesh),
        pytest.raises(ValueError, match=r"^mesh has axes \('batch',\).*'seq'"),
    ):
        split_over_time(jnp.ones(N), jnp.ones((B, 8, N)))


def test_explicit_axes_are_refused_but_for_auto_axes() -> None:
    mesh = jax.make_mesh((8,), ("seq",), (AxisType.Explicit,))
    split = PartitionSpec(None, "seq")
    a, b = jnp.ones(N), jnp.ones((B, 8, N))
    with jax.set_mesh(mesh):
        with pytest.raises(ValueError, match=r"^mesh has axes of types .*Explicit.* needs Auto"):
            split_over_time(a, b)
        call = jax.sharding.auto_axes(lambda *x: split_over_time(*x)[0], out_sharding=split)
        h = jax.jit(call)(a, b)
    assert h.sharding.is_equivalent_to(NamedSharding(mesh, split), 3)
    np.testing.assert_array_equal(h, jnp.broadcast_to(jnp.arange(1.0, 9)[:, None], h.shape))
