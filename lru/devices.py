"""Devices that JAX computes on: one, or a mesh of those of several processes and hosts.

A mesh has two axes, `data`, over which the rows of every batch are split, and `seq`, over which
scans split time. The processes of a run are joined by `jax.distributed`.
"""

import itertools
import os
from collections.abc import Callable
from functools import cache, cached_property, partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

DATA, SEQ = "data", "seq"

LONGEST_WAIT = 3600
"""Seconds that processes wait for each other at the start, where one may prepare the data."""
_meetings = itertools.count()

NO_ROWS = -1
"""In place of the axis of the rows of an array that has none, but holds for all."""

ALL = (0, 1)
"""The share of a batch that is all of it: number 0 of 1."""

Tree = TypeVar("Tree")
Axes = Callable[[Any], Any]
"""From a tree to the axes of the rows of its arrays."""


def bytes_of_device() -> int:
    """Memory of the device: of a CPU, that of the machine."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in statistics:
        return statistics["bytes_limit"]
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def mesh_sizes(text: str) -> dict[str, int]:
    """The sizes of the axes of a mesh, such as `data=4,seq=2`; of those left out, 1.

    Raises:
        ValueError: if it is not of that form.
    """
    sizes: dict[str, int] = {}
    for part in text.split(","):
        name, _, size = part.strip().partition("=")
        if name not in (DATA, SEQ) or name in sizes or not size.isdecimal() or int(size) < 1:
            raise ValueError(
                f"mesh must be data=N, seq=N or data=N,seq=N, N numbers of devices, got {text!r}"
            )
        sizes[name] = int(size)
    return {DATA: 1, SEQ: 1, **sizes}


class Devices:
    """The devices of a run, and what of its arrays lies on which.

    Attributes:
        mesh: None for one device, where nothing has to be laid out.
        data: number of parts into which the rows of a batch are split.
        seq: number of parts into which scans split time.
        share: index and number of the shares of a batch that processes read; those that hold the
            same rows, split in time, have the same.
    """

    def __init__(self, mesh: Mesh | None = None):
        self.mesh = mesh
        self.data, self.seq = (1, 1) if mesh is None else mesh.devices.shape
        self.share = ALL if mesh is None else _share(mesh)

    @classmethod
    def named(cls, text: str | None) -> "Devices":
        """The devices that a flag names.

        Args:
            text: sizes of the axes; None for one device or, of several processes, for `data` over
                all.

        Raises:
            ValueError: if they are not all devices there are, or processes cannot share the rows.
        """
        if text is None and jax.process_count() == 1:
            return cls()
        sizes = {DATA: jax.device_count(), SEQ: 1} if text is None else mesh_sizes(text)
        if sizes[DATA] * sizes[SEQ] != jax.device_count():
            raise ValueError(
                f"mesh must be of all devices, {DATA} times {SEQ} = {jax.device_count()}, got "
                f"{text!r}"
            )
        if jax.device_count() == 1:
            return cls()
        devices = np.array(jax.devices()).reshape(sizes[DATA], sizes[SEQ])
        return cls(Mesh(devices, (DATA, SEQ), (AxisType.Auto,) * 2))

    def phrase(self) -> str:
        """Phrase that says how they are used; empty of one device."""
        if self.mesh is None:
            return ""
        processes = jax.process_count()
        return f", {DATA}={self.data} {SEQ}={self.seq}" + (
            f" in {processes} processes" if processes > 1 else ""
        )

    @property
    def of_rows(self) -> NamedSharding | None:
        """The sharding of arrays with rows along their first axis; None on one device."""
        return None if self.mesh is None else NamedSharding(self.mesh, _spec(0))

    @property
    def axis(self) -> str | None:
        """Name of the axis over which programs sum up what they find in their rows, if any."""
        return DATA if self.data > 1 else None

    def on_each(self, function: Callable, axes: Axes) -> Callable:
        """The program of each part of `data` on its own rows; time is left to the compiler.

        Args:
            function: of trees, the first of which it returns changed. What holds for all rows must
                come out equal on all devices.
            axes: from a tree to the axes of the rows of its arrays.
        """
        if self.mesh is None:
            return function
        # Where time is not split, the compiler has nothing to split: kernels are opaque to it.
        manual = {DATA} if self.seq > 1 else {DATA, SEQ}

        def everywhere(*trees: Any) -> Any:
            specs = tuple(jax.tree.map(_spec, axes(tree)) for tree in trees)
            return jax.shard_map(
                function,
                mesh=self.mesh,
                in_specs=specs,
                out_specs=specs[0],
                axis_names=manual,
                check_vma=False,
            )(*trees)

        return everywhere

    def put(self, tree: Tree, axes: Axes, share: tuple[int, int] = ALL) -> Tree:
        """Lay a tree out on the mesh; arrays that lie there already stay.

        Args:
            tree: of arrays.
            axes: from a tree to the axes of the rows of its arrays.
            share: index and number of the shares of the rows, of which the arrays have one.
        """
        if self.mesh is None:
            return tree
        return jax.tree.map(partial(self._put, share), tree, axes(tree))

    def send(self, tree: Tree, axes: Axes, share: tuple[int, int] = ALL) -> Tree:
        """Send a tree from the host, on one device as well; arguments are those of `put`."""
        return jax.device_put(tree) if self.mesh is None else self.put(tree, axes, share)

    def _put(self, share: tuple[int, int], leaf: Any, axis: int) -> jax.Array:
        assert self.mesh is not None
        sharding = NamedSharding(self.mesh, _spec(axis))
        if isinstance(leaf, jax.Array) and leaf.sharding.is_equivalent_to(sharding, leaf.ndim):
            return leaf
        if jax.process_count() == 1:
            return jax.device_put(leaf, sharding)
        own, shape, first = np.asarray(leaf), list(np.shape(leaf)), 0
        if axis != NO_ROWS:
            first = share[0] * shape[axis]
            shape[axis] *= share[1]

        def part(index: Any) -> np.ndarray:
            at = list(index)
            if axis != NO_ROWS:
                start, end, _ = at[axis].indices(shape[axis])
                at[axis] = slice(start - first, end - first)
            return own[tuple(at)]

        return jax.make_array_from_callback(tuple(shape), sharding, part)

    def whole(self, tree: Tree) -> Tree:
        """The tree with every array whole on all devices; all processes must ask for it."""
        return tree if self.mesh is None else self._whole(tree)

    @cached_property
    def _whole(self) -> Callable[[Tree], Tree]:
        assert self.mesh is not None
        return jax.jit(lambda tree: tree, out_shardings=NamedSharding(self.mesh, PartitionSpec()))

    def local(self, tree: Tree) -> Tree:
        """The tree on one device of this process, of arrays that are whole on all."""
        if self.mesh is None:
            return tree
        return jax.device_put(jax.device_get(tree), jax.local_devices()[0])


def _spec(axis: int) -> PartitionSpec:
    return PartitionSpec() if axis == NO_ROWS else PartitionSpec(*[None] * axis, DATA)


def _share(mesh: Mesh) -> tuple[int, int]:
    """See `Devices.share`.

    Raises:
        ValueError: if processes would share devices that hold the same rows unevenly.
    """
    data, seq = mesh.devices.shape
    here = jax.local_device_count()
    if here % seq and seq % here:
        raise ValueError(
            f"mesh must have a {SEQ} that divides, or is a multiple of, the {here} devices of a "
            f"process, got {seq}"
        )
    count = min(jax.process_count(), data)
    return jax.process_index() * count // jax.process_count(), count


def rows_first(tree: Any) -> Any:
    """The axes of the rows of arrays that have them along their first one; scalars have none."""
    return jax.tree.map(lambda leaf: 0 if np.ndim(leaf) else NO_ROWS, tree)


def no_rows(tree: Any) -> Any:
    """The axes of the rows of arrays that have none."""
    return jax.tree.map(lambda leaf: NO_ROWS, tree)


# Processes.


def join_processes(
    coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Join the processes of a run, before JAX is asked for its devices.

    Without arguments those of a step of SLURM are joined, if there are several; else this process
    is alone.

    Args:
        coordinator: HOST:PORT on which process 0 is reached.
        num_processes: their number; 1 keeps tasks of SLURM apart.
        process_id: number of this one.
    """
    if jax.distributed.is_initialized() or num_processes == 1:
        return
    if coordinator is not None:
        jax.distributed.initialize(coordinator, num_processes, process_id)
    # Of a step alone: the script of a job is one process, however many tasks its steps may have.
    elif int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        jax.distributed.initialize(cluster_detection_method="slurm")


def is_first() -> bool:
    """True in the process that writes and prints, which is the only one or number 0."""
    return jax.process_index() == 0


def on_first(action: Callable[[], Any]) -> None:
    """Do something in the first process, and go on in all once it is done.

    Raises:
        OSError: in the others, if it failed there.
    """
    error = None
    if is_first():
        try:
            action()
        # Whatever it is, the others wait to be told of it.
        except BaseException as raised:
            error = raised
    _meet()
    if greatest(int(error is not None)) and error is None:
        raise OSError("process 0 could not begin; its message says why")
    if error is not None:
        raise error


def _meet() -> None:
    """Wait for all processes, however far apart: what devices exchange waits for seconds only."""
    if jax.process_count() > 1:
        # Here, as it takes seconds to import.
        from orbax.checkpoint import multihost

        meet = multihost.get_barrier_sync_fn(processes=set(range(jax.process_count())))
        meet(key=f"lru-{next(_meetings)}", timeout_ms=LONGEST_WAIT * 1000)


class Agreement:
    """The answer of all processes to one question that each asks again and again."""

    def __init__(self):
        self._asked: jax.Array | None = None
        self._said = False

    def __call__(self, answer: bool) -> bool:
        """True, from then on, once the answer of a process was; in all at the same time.

        Of several processes the answer is that to the question before, so that nobody waits for
        the device.
        """
        if jax.process_count() == 1:
            return answer
        before, self._asked = self._asked, _greatest(int(answer))
        self._said = self._said or (before is not None and bool(before))
        return self._said


def greatest(number: int) -> int:
    """The greatest of the numbers of all processes, all of which must ask."""
    return number if jax.process_count() == 1 else int(_greatest(number))


def _greatest(number: int) -> jax.Array:
    sharding, gather = _over_processes()
    numbers = jax.make_array_from_callback(
        (jax.device_count(),), sharding, lambda index: np.array([number], np.int32)
    )
    return gather(numbers)


@cache
def _over_processes() -> tuple[NamedSharding, Callable[[jax.Array], jax.Array]]:
    mesh = Mesh(np.array(jax.devices()), ("all",))
    whole = NamedSharding(mesh, PartitionSpec())
    return NamedSharding(mesh, PartitionSpec("all")), jax.jit(jnp.max, out_shardings=whole)
