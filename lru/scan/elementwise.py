"""Nonlinear recurrences of units by themselves, h_t = f(h_{t-1}, x_t) elementwise, in C++ on a CPU.

`lru.scan.nonlinear` runs them; these are the calls of `cpu/elementwise.cc` for those that it knows.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
from jax import Array
from jaxtyping import Float

from lru.scan import cpu
from lru.scan.select import FUSED, select


class Elementwise(NamedTuple):
    """A `Recurrence` of one field, each unit of which reads no other.

    Attributes:
        run: from parameters, x_t [..., S] and h_{t-1} [..., N] to h_t; a function of a module, so
            that it is compiled once.
        native: its name in `cpu/elementwise.cc`, where its parameter is one vector [N]; empty if it
            is not there.
    """

    run: Callable[[Any, Array, Array], Array]
    native: str = ""
    elementwise = True

    def step(
        self, parameters: Any, x: Float[Array, "*rows S"], before: Float[Array, "*rows 1 N"]
    ) -> Float[Array, "*rows 1 N"]:
        """See `Recurrence.step`."""
        return self.run(parameters, x, before[..., 0, :])[..., None, :]

    def units(
        self,
        parameters: Any,
        x: Float[Array, "*rows S"],
        own: Float[Array, "*rows 1 N"],
        others: Float[Array, "*rows 1 N"],
    ) -> Float[Array, "*rows 1 N"]:
        """See `Recurrence.units`: there are no others."""
        del others
        return self.step(parameters, x, own)


def known_cell(
    recurrence: Any, parameters: Any, x: Array, first: Array, fresh: Array | None
) -> str:
    """The name of a recurrence whose loop in C++ fits the arguments; else nothing."""
    # It has one type for all arrays, and resets to zero.
    types = {str(array.dtype) for array in jax.tree.leaves((parameters, x, first))}
    if not isinstance(recurrence, Elementwise) or fresh is not None:
        return ""
    if not recurrence.native or types not in ({"float32"}, {"float64"}):
        return ""
    chosen = select("elementwise", (*x.shape[:2], first.shape[2]))
    return recurrence.native if chosen == FUSED else ""


def states(
    cell: str,
    reverse: bool,
    u: Array,
    x: Array,
    first: Array,
    fresh: None,
    keep: Array | None,
    valid: Array | None,
) -> Float[Array, "B T 1 N"]:
    """The states after all steps."""
    h = jax.ShapeDtypeStruct((*x.shape[:2], first.shape[2]), x.dtype)
    run = partial(cpu.call, "lru_elementwise_forward", h, cell=cell, reverse=reverse)
    return run(x, u, first[:, 0], cpu.mask(keep), cpu.mask(valid))[:, :, None]


def gradients(
    cell: str,
    reverse: bool,
    u: Array,
    x: Array,
    states: Array,
    first: Array,
    fresh: None,
    keep: Array | None,
    valid: Array | None,
    g: Array,
) -> tuple[Array, Array, Array, None]:
    """The gradients of u, x and the first state, from that of the states."""
    h0 = first[:, 0]
    results = tuple(jax.ShapeDtypeStruct(like.shape, x.dtype) for like in (x, h0, h0))
    run = partial(cpu.call, "lru_elementwise_backward", results, cell=cell, reverse=reverse)
    dx, du, dh0 = run(x, u, h0, cpu.mask(keep), cpu.mask(valid), states[:, :, 0], g[:, :, 0])
    return du.sum(0), dx, dh0[:, None], None
