"""Time split over devices: one exchange of a few numbers a sequence in each direction.

All steps of a shard are one step of their form, h -> a_prod h + h_last, where h_last is what they
reach from zero. Each shard composes its own, receives those of all, and runs from the state that
the shards before it lead to. Nothing is left to correct, which would be two more passes over
memory: a shard reads b for the exchange, and its inner method reads b and writes h. For a constant
a, a_prod is a power that all shards know. The gradient does the same in the other direction.
"""

from collections.abc import Callable
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import AbstractMesh, AxisType, Mesh, PartitionSpec

from lru.devices import SEQ
from lru.scan import chunked, parts
from lru.scan.methods import LINEAR_METHODS, TIME_SPLITTING_METHODS, Method, previous
from lru.scan.select import select


def method(*, mesh: Mesh | None = None, axis: str = SEQ, inner: str = "auto") -> Method:
    """Make a method that splits time over an axis of a mesh of devices.

    T need not be a multiple of their number, and other axes of the mesh may split the batch. A
    layer takes a name: `LINEAR_METHODS.register("mine")(method(inner="associative"))`.

    Args:
        mesh: the devices; None for the mesh of the context (`jax.set_mesh`) or, where there is
            none, all devices.
        axis: name of the axis.
        inner: method that each device runs on its own steps, a name in `LINEAR_METHODS` or "auto".
            "native" would gather a batch that another axis splits, and "auto" does not choose it.
    """

    def linear(a: Array, b: Array, h0: Array, keep: Array | None, reverse: bool) -> Array:
        devices = _mesh_of_context(axis) if mesh is None else mesh
        _check(devices, axis)
        steps = b.shape[1]
        a, b, keep = _fill_up(a, b, h0, keep, reverse, -steps % devices.shape[axis])
        shape = (b.shape[0], b.shape[1] // devices.shape[axis], b.shape[3])
        name = select("shard", shape, inner, split=_others_split(devices, axis))
        solve = _program(devices, axis, LINEAR_METHODS[name], reverse, a.ndim == 2)
        return solve(a, b, h0, keep)[:, :steps]

    TIME_SPLITTING_METHODS.add(linear)
    return linear


LINEAR_METHODS.register("sharded")(method())


def _others_split(mesh: Mesh | AbstractMesh, axis: str) -> bool:
    """True if the compiler splits over other axes, too."""
    types = zip(mesh.axis_names, mesh.axis_types, strict=True)
    return any(
        kind == AxisType.Auto and mesh.shape[name] > 1 for name, kind in types if name != axis
    )


def _mesh_of_context(axis: str) -> Mesh | AbstractMesh:
    mesh = jax.sharding.get_abstract_mesh()
    return jax.make_mesh((jax.device_count(),), (axis,), (AxisType.Auto,)) if mesh.empty else mesh


def _check(mesh: Mesh | AbstractMesh, axis: str) -> None:
    types = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    if axis not in types:
        raise ValueError(
            f"mesh has axes {mesh.axis_names}, but scan method 'sharded' needs an axis {axis!r}"
        )
    if types[axis] != AxisType.Auto or AxisType.Explicit in types.values():
        raise ValueError(
            f"mesh has axes of types {types}, but scan method 'sharded' needs Auto: give "
            "axis_types to jax.make_mesh, or wrap the call in jax.sharding.auto_axes"
        )


def _fill_up(
    a: Array, b: Array, h0: Array, keep: Array | None, reverse: bool, missing: int
) -> tuple[Array, Array, Array | None]:
    """Add steps behind the last, whatever the direction: so no other step changes its device.

    A scan that comes from there finds h0 in them; their states are cut off.
    """
    if missing == 0:
        return a, b, keep

    def longer(x: Array) -> Array:
        return jnp.pad(x, ((0, 0), (0, missing), *[(0, 0)] * (x.ndim - 2)))

    steps = b.shape[1]
    a, b = a if a.ndim == 2 else longer(a), longer(b)
    if reverse:
        keep = jnp.ones((b.shape[0], steps), bool) if keep is None else keep
        b = jnp.where((jnp.arange(b.shape[1]) < steps)[:, None, None], b, h0[:, None])
    return a, b, None if keep is None else longer(keep)


@cache
def _program(
    mesh: Mesh | AbstractMesh, axis: str, inner: Method, reverse: bool, constant: bool
) -> Callable[..., Array]:
    """The problem of `lru.scan.methods` for whole arrays; cached, so that it is compiled once."""
    split, whole = PartitionSpec(None, axis), PartitionSpec()
    program = jax.shard_map(
        _shard(axis, inner, reverse),
        mesh=mesh,
        in_specs=(whole if constant else split, split, whole, split),
        out_specs=split,
        axis_names={axis},
        # All results are split, so there is nothing to check; and inner methods need not declare
        # how the results of their kernels vary.
        check_vma=False,
    )
    # Outside of jit, shard_map refuses axes that it leaves to the compiler.
    return jax.jit(program)


def _shard(axis: str, inner: Method, reverse: bool) -> Callable[..., Array]:
    """Work of each device on its own steps."""

    def run(a: Array, b: Array, h0: Array, keep: Array | None) -> tuple[Array, Callable]:
        start = _arriving(a, b, h0, keep, reverse, axis)
        return jax.vjp(lambda a, b, h0: inner(a, b, h0, keep, reverse), a, b, start)

    def forward(a: Array, b: Array, h0: Array, keep: Array | None) -> tuple[Array, tuple]:
        h, pull = run(a, b, h0, keep)
        return h, (a, keep, pull)

    def backward(saved: tuple, g: Array) -> tuple[Array, Array, Array, None]:
        a, keep, pull = saved
        first, end = (lax.axis_size(axis) - 1, 0) if reverse else (0, -1)
        conj, nothing = parts.conjugate(a), jnp.zeros_like(g[:, 0])
        of_end = _arriving(conj, g, nothing, keep, not reverse, axis, adjoint=True)
        da, db, dstart = pull(g.at[:, end].add(of_end))
        return da, db, jnp.where(lax.axis_index(axis) == first, dstart, 0), None

    solve = jax.custom_vjp(lambda *problem: run(*problem)[0])
    solve.defvjp(forward, backward)
    return solve


def _arriving(
    a: Array,
    b: Array,
    h0: Array,
    keep: Array | None,
    reverse: bool,
    axis: str,
    *,
    adjoint: bool = False,
) -> Array:
    """The state that reaches this shard, where h0 reaches the first one in scan direction."""
    factor, state, through = _one_step(a, b, keep, reverse, adjoint=adjoint)
    if through is not None:
        through = jnp.broadcast_to(through[:, None, None], state[:, :1].shape).astype(b.dtype)
    sent, structure = jax.tree.flatten((state, None if a.ndim == 2 else factor, through))
    bounds = np.cumsum([x.shape[1] for x in sent])[:-1]
    received = jnp.split(_gather(jnp.concatenate(sent, axis=1), axis), bounds, axis=2)
    states, factors, through = jax.tree.unflatten(structure, received)
    states = chunked.solve(
        factor if factors is None else factors,
        states,
        h0,
        None if through is None else through[:, :, 0, 0] > 0,
        reverse,
        chunked.multiply,
    )
    return previous(states, h0, reverse)[:, lax.axis_index(axis)]


def _gather(x: Array, axis: str) -> Array:
    """Stack the x of all shards along a new second dimension."""
    if not _others_split(jax.sharding.get_abstract_mesh(), axis):
        return lax.all_gather(x, axis, axis=1)
    # Where another axis splits the batch, the compiler gathers that too; but not for a sum.
    shards = jnp.zeros((x.shape[0], lax.axis_size(axis), *x.shape[1:]), x.dtype)
    return lax.psum(shards.at[:, lax.axis_index(axis)].set(x), axis)


def _one_step(
    a: Array, b: Array, keep: Array | None, reverse: bool, *, adjoint: bool
) -> tuple[Array, Array, Array | None]:
    """All steps as one: its factor, [Q, N] or [B, Q, N], what it adds, and whether it keeps [B]."""
    rows, steps = b.shape[:2]
    power = _power(a, steps) if a.ndim == 2 else None
    while True:
        length = chunked.chunk_length(b.shape[1], min(chunked.LONGEST_CHUNK, b.shape[1]))
        chunks = chunked.cut(a, b, keep, length, at_start=not reverse)
        a, b, keep = chunked.compose(*chunks, rows, reverse, adjoint=adjoint)
        if b.shape[1] == 1:
            factor = a[:, 0] if power is None else power
            return factor, b[:, 0], None if keep is None else keep[:, 0]
        adjoint = False


def _power(a: Array, exponent: int) -> Array:
    if exponent == 1:
        return a
    half = _power(a, exponent // 2)
    square = parts.multiply(half, half)
    return parts.multiply(a, square) if exponent % 2 else square
