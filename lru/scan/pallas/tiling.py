"""Cutting of a problem into programs, and the reads, writes and steps in time of one program.

Programs form a grid [B, blocks of lanes, blocks of time]. Those of one row and block of lanes run
in the order of time, each after the one that it continues.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl

try:
    from jax.experimental.pallas import triton
except ImportError:
    # Releases of JAX from some one on are to come without it.
    triton: Any = None

Ref = Any
Index = Array | int
Parts = list[Array]


@dataclass(frozen=True)
class Tiling:
    """The cut of a problem.

    Attributes:
        rows: B.
        length: T.
        width: N.
        steps: T of a block.
        lanes: N of a block.
        unroll: the number of steps, a power of two, that are read before the first is computed.
        masked: whether kernels have to spare the memory beyond N themselves.
        down: whether time runs from T - 1 to 0.
    """

    rows: int
    length: int
    width: int
    steps: int
    lanes: int
    unroll: int
    masked: bool
    down: bool

    @property
    def blocks(self) -> int:
        """The number of blocks of time."""
        return pl.cdiv(self.length, self.steps)

    @property
    def grid(self) -> tuple[int, int, int]:
        """The number of programs along each axis."""
        return self.rows, pl.cdiv(self.width, self.lanes), self.blocks

    def block(self, k: Index) -> Index:
        """Number of the block of time that runs k-th."""
        return self.blocks - 1 - k if self.down else k

    def beyond(self, k: Index) -> Index:
        """The step that comes after the k-th block; for the last block, any."""
        step = self.block(k) * self.steps + (-1 if self.down else self.steps)
        return jnp.clip(step, 0, self.length - 1)


class Program:
    """View of a kernel on its block; the value at a step is a list of parts [1, lanes]."""

    def __init__(self, tiling: Tiling):
        self.tiling = tiling
        self.k = pl.program_id(2)
        self.count: Index = tiling.steps
        if tiling.length % tiling.steps:
            self.count = jnp.minimum(
                tiling.steps, tiling.length - tiling.block(self.k) * tiling.steps
            )
        self.mask = None
        if tiling.masked and tiling.width % tiling.lanes:
            lane = lax.broadcasted_iota(jnp.int32, (1, tiling.lanes), 1)
            self.mask = pl.program_id(1) * tiling.lanes + lane < tiling.width

    def time(self, i: Index) -> Index:
        """Place in the block of the i-th step to run."""
        return self.count - 1 - i if self.tiling.down else i

    def zeros(self, ref: Ref) -> Parts:
        """Parts [1, lanes] of a ref, all zero."""
        return [jnp.zeros((1, ref.shape[-1]), jnp.float32)] * ref.shape[-2]

    def read(self, ref: Ref, *index: Index) -> Parts:
        """The parts at an index of all axes but the last two, as float32."""
        views = [ref.at[*index, pl.ds(part, 1), :] for part in range(ref.shape[-2])]
        if self.mask is None:
            return [view[...].astype(jnp.float32) for view in views]
        return [triton.load(view, mask=self.mask).astype(jnp.float32) for view in views]

    def reader(self, ref: Ref) -> Callable[[Index], Parts]:
        """A function of the step that reads ref, once and for all if it has no axis of time."""
        if len(ref.shape) == 3:
            return lambda t: self.read(ref, t)
        value = self.read(ref)
        return lambda _: value

    def write(self, ref: Ref, value: Parts, *index: Index) -> None:
        """Put parts at an index of all axes but the last two, in the type of ref."""
        for part, x in enumerate(value):
            view, x = ref.at[*index, pl.ds(part, 1), :], x.astype(ref.dtype)
            if self.mask is None:
                view[...] = x
            else:
                triton.store(view, x, mask=self.mask)

    def flag(self, ref: Ref | None, t: Index) -> Array | None:
        """True where the state before step t is kept; None if it always is."""
        return None if ref is None else ref[0, t] != 0

    def resume(self, initial: Parts, left: Ref) -> Parts:
        """The initial value in the first block of time, then what the block before has left."""
        if self.tiling.blocks == 1:
            return initial
        values = zip(initial, self.read(left), strict=True)
        return [lax.select(self.k == 0, x, y) for x, y in values]

    def run(self, load: Callable, step: Callable, count: Index, carry: Any) -> Any:
        """Run `carry = step(t, load(t), carry)` for the first `count` steps of the block."""

        def advance(start: Index, number: int, i: Index, carry: Any) -> Any:
            times = [self.time(start + i * number + j) for j in range(number)]
            for t, inputs in zip(times, [load(t) for t in times], strict=True):
                carry = step(t, inputs, carry)
            return carry

        # What `unroll` steps at a time leave over runs in halves, quarters...
        done = 0
        for doublings in reversed(range(self.tiling.unroll.bit_length())):
            number, rounds = 1 << doublings, (count - done) >> doublings
            carry = lax.fori_loop(0, rounds, partial(advance, done, number), carry)
            done += rounds * number
        return carry
