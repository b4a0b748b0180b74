"""Long sequences chunk after chunk: gradients recompute the states that they need.

A layer that runs over all of time at once keeps its states [B, T, N] for the gradient. Here time
is cut into chunks of L steps; a chunk's input product, scan and output product stay in a
processor's cache, only the state that each chunk starts from is kept, and the gradient, going
through the chunks from the last to the first, runs each of them once more. Chen et al. 2016
(arXiv 1604.06174), section 4, with the carried state as the checkpoint.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float, Inexact, Integer

from lru.layers.base import (
    RecurrentLayer,
    State,
    known_compute_dtype,
    known_scan_method,
    reset_marks,
    without_padding,
)
from lru.registry import Registry
from lru.scan import LINEAR_METHODS, TIME_SPLITTING_METHODS, is_portable
from lru.scan.methods import step_counts, time_is_split, traced_once

# (parameters, series, state, lengths, resets) -> (y, state), a layer as a pure function.
Run = Callable[..., tuple[Array, State]]
# Inputs [B, T, D], and what else a layer reads step by step, [B, T, ...].
Series = tuple[Array, ...]


class ChunkedLayer(RecurrentLayer):
    """A layer that runs sequences of more than `chunk_length` steps chunk after chunk.

    A subclass has `whole` and `states`.

    Attributes:
        chunk_length: steps of a chunk; 0 for one chunk, however long.
        compute_dtype: type of matrix products.
        scan_method: algorithm of the scan.
        scans_in_chunks: whether `whole` leaves chunks to a scan that makes them itself.
    """

    scans_in_chunks: ClassVar[bool] = False

    def __init__(
        self,
        d_model: int,
        d_hidden: int,
        chunk_length: int,
        compute_dtype: str,
        scan_method: str = "auto",
        methods: Registry = LINEAR_METHODS,
    ):
        """Check how the layer is computed; its scan method is one of the methods.

        Raises:
            UnknownNameError: if there is no such scan method.
            ValueError: if another value is out of range.
        """
        super().__init__(d_model, d_hidden)
        if chunk_length < 0:
            raise ValueError(f"chunk_length must be at least 0, got {chunk_length}")
        self.compute_dtype = known_compute_dtype(compute_dtype)
        self.scan_method = known_scan_method(scan_method, methods)
        # A chunk of steps lies on one device: the others would wait.
        split = methods.get(self.scan_method) in TIME_SPLITTING_METHODS
        self.chunk_length = 0 if split else chunk_length

    def __call__(
        self,
        x: Float[Array, "B T D"],
        state: State = None,
        *,
        lengths: Integer[Array, " B"] | None = None,
        resets: Bool[Array, "B T"] | None = None,
        reverse: bool = False,
    ) -> tuple[Float[Array, "B T D"], State]:
        """See `RecurrentLayer.__call__`."""
        self.check_inputs(x, state)
        return self._over_time((x,), state, lengths, resets, reverse)

    def _over_time(
        self,
        series: Series,
        state: State,
        lengths: Array | None,
        resets: Array | None,
        reverse: bool,
    ) -> tuple[Array, State]:
        """A call with x and what else `whole` takes over time, which have been checked."""
        x = series[0]
        lengths = step_counts(lengths, x.shape[1])
        resets = reset_marks(resets, lengths, reverse)
        state = self._start(x, state)
        # A portable program may have no number for T, and has no gradient. A chunk of steps would
        # lie on one of the devices that split time.
        alone = self.scans_in_chunks or is_portable() or time_is_split()
        if alone or not 0 < self.chunk_length < x.shape[1]:
            return self._masked(series, state, lengths, resets, reverse)
        graphdef, params = nnx.split(self)
        start = self.initial_state(x.shape[0]) if state is None else state
        run, length = _Masked(graphdef, reverse), self.chunk_length
        return run_in_chunks(run, params, series, start, lengths, resets, length, reverse)

    def observe(
        self,
        x: Float[Array, "B T D"],
        state: State = None,
        *,
        lengths: Integer[Array, " B"] | None = None,
        resets: Bool[Array, "B T"] | None = None,
        reverse: bool = False,
    ) -> dict[str, Inexact[Array, "B T N"]]:
        """See `RecurrentLayer.observe`."""
        self.check_inputs(x, state)
        return self._observed((x,), state, lengths, resets, reverse)

    def _observed(
        self,
        series: Series,
        state: State,
        lengths: Array | None,
        resets: Array | None,
        reverse: bool,
    ) -> dict[str, Array]:
        x, *others = series
        state = self._start(x, state)
        lengths = step_counts(lengths, x.shape[1])
        resets = reset_marks(resets, lengths, reverse)
        x = without_padding(x, lengths)
        found = self.states(x, state, lengths, resets, reverse, *others)
        return found if isinstance(found, dict) else {"state": found}

    def _start(self, x: Array, state: State) -> State:
        """The state given, as wide as the layer's own, or that of a reset."""
        if state is None:
            return self.reset_state(x.shape[0])
        return jax.tree.map(_as_wide, state, self.initial_state(1))

    def states(
        self,
        x: Float[Array, "B T D"],
        state: State,
        lengths: Integer[Array, " B"] | None,
        resets: Bool[Array, "B T"] | None,
        reverse: bool,
    ) -> Inexact[Array, "B T N"] | dict[str, Inexact[Array, "B T N"]]:
        """The states after all steps, or several by name; arguments are those of `whole`."""
        raise NotImplementedError

    def _masked(
        self,
        series: Series,
        state: State,
        lengths: Array | None,
        resets: Array | None,
        reverse: bool,
    ) -> tuple[Array, State]:
        x, *others = series
        x = without_padding(x, lengths)
        y, state = self.whole(x, state, lengths, resets, reverse, *others)
        # So that what a loss says about padding, NaN included, reaches no parameter.
        return without_padding(y, lengths), state

    def whole(
        self,
        x: Float[Array, "B T D"],
        state: State,
        lengths: Integer[Array, " B"] | None,
        resets: Bool[Array, "B T"] | None,
        reverse: bool,
    ) -> tuple[Float[Array, "B T D"], State]:
        """The layer over all steps at once.

        Arguments have been checked, x is zero at padding and `resets` are those of
        `lru.layers.base.reset_marks`. The state may be None, for zeros; else it is as
        wide as `initial_state` at least, and what is returned must be of its type.
        """
        raise NotImplementedError


def skip(D: Float[Array, " D"], x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    """D ⊙ x, of which XLA takes the gradient of D as one sum over rows and steps.

    Without the broadcast it sums over steps alone if there is one row, by products of transposes.
    """
    return jnp.broadcast_to(D, x.shape) * x


class _Masked(NamedTuple):
    """A layer as a pure function, which equals that of every layer built alike."""

    graphdef: nnx.GraphDef
    reverse: bool

    def __call__(self, params: Any, *arguments: Any) -> tuple[Array, State]:
        return nnx.merge(self.graphdef, params)._masked(*arguments, self.reverse)


def _as_wide(given: Array, own: Array) -> Array:
    """A leaf of a state in its type, or in the layer's own where that is wider."""
    dtype = jnp.result_type(given, own)
    if jnp.iscomplexobj(given) and not jnp.iscomplexobj(own):
        raise ValueError(
            f"state has dtype {given.dtype}, but {own.dtype} or a wider real float is allowed"
        )
    return jnp.asarray(given, dtype)


def run_in_chunks(
    run: Run,
    params: Any,
    series: Series,
    state: State,
    lengths: Integer[Array, " B"] | None,
    resets: Bool[Array, "B T"] | None,
    length: int,
    reverse: bool = False,
) -> tuple[Float[Array, "B T D"], State]:
    """A layer over time in chunks; values and gradients are those of `run` on the whole.

    Args:
        run: the layer as a pure function of (params, series, state, lengths, resets), hashed by
            what it does. Its outputs are shaped like the inputs, and rows of length 0 hand their
            state on unchanged.
        params: its parameters, real floats.
        series: inputs, and what else is read step by step: real floats, all cut into chunks.
        state: where to start.
        lengths: number of valid steps of each row; None if all are valid.
        resets: True where a row starts afresh; None if nowhere.
        length: number L of steps in a chunk; the last one in the direction of the run has the rest.
        reverse: whether the layer runs from the last chunk to the first.
    """
    return _chunks_once(run, length, reverse, params, series, state, lengths, resets)


def _slice(tree: Any, start: Array | int, size: int) -> Any:
    return jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, start, size, axis=1), tree)


def _write(whole: Any, part: Any, start: Array | int) -> Any:
    def write(whole: Array, part: Array) -> Array:
        return lax.dynamic_update_slice_in_dim(whole, part, start, axis=1)

    return jax.tree.map(write, whole, part)


def _like(tree: Any) -> Any:
    return jax.tree.map(lambda x: lax.empty(x.shape, x.dtype), tree)


def _bounds(steps: int, length: int, reverse: bool) -> tuple[int, int, Callable, int]:
    """Numbers of whole chunks and of steps in the rest, and where these and that start."""
    count, rest = divmod(steps, length)
    if reverse:
        return count, rest, lambda k: steps - (k + 1) * length, 0
    return count, rest, lambda k: k * length, count * length


def _options(start: Array | int, size: int, lengths: Array | None, resets: Array | None) -> tuple:
    inside = None if lengths is None else jnp.clip(lengths - start, 0, size)
    return inside, _slice(resets, start, size)


def _forward(
    run: Run,
    length: int,
    reverse: bool,
    params: Any,
    series: Series,
    state: State,
    lengths: Array | None,
    resets: Array | None,
) -> tuple[tuple[Array, State], tuple]:
    count, rest, start_of, start_of_rest = _bounds(series[0].shape[1], length, reverse)

    def chunk(start: Array | int, size: int, y: Array, state: State) -> tuple[Array, State]:
        options = _options(start, size, lengths, resets)
        part, state = run(params, _slice(series, start, size), state, *options)
        return _write(y, part, start), state

    def step(k: Array, carry: tuple) -> tuple:
        y, state, starts = carry
        starts = jax.tree.map(lambda all, one: all.at[k].set(one), starts, state)
        return *chunk(start_of(k), length, y, state), starts

    starts = jax.tree.map(lambda leaf: jnp.zeros((count, *leaf.shape), leaf.dtype), state)
    y, state, starts = lax.fori_loop(0, count, step, (_like(series[0]), state, starts))
    saved = (params, series, starts, state, lengths, resets)
    if rest:
        y, state = chunk(start_of_rest, rest, y, state)
    return (y, state), saved


def _backward(
    run: Run, length: int, reverse: bool, saved: tuple, gradients: tuple[Array, State]
) -> tuple:
    params, series, starts, before_rest, lengths, resets = saved
    dy, dstate = gradients
    count, rest, start_of, start_of_rest = _bounds(dy.shape[1], length, reverse)

    def chunk(start: Array | int, size: int, before: State, carry: tuple) -> tuple:
        dparams, dseries, dstate = carry
        options = _options(start, size, lengths, resets)

        def partly(params: Any, series: Series, state: State) -> tuple[Array, State]:
            return run(params, series, state, *options)

        _, pull = jax.vjp(partly, params, _slice(series, start, size), before)
        more, part, dstate = pull((_slice(dy, start, size), dstate))
        return jax.tree.map(jnp.add, dparams, more), _write(dseries, part, start), dstate

    def step(i: Array, carry: tuple) -> tuple:
        k = count - 1 - i
        return chunk(start_of(k), length, jax.tree.map(lambda all: all[k], starts), carry)

    carry = (jax.tree.map(jnp.zeros_like, params), _like(series), dstate)
    if rest:
        carry = chunk(start_of_rest, rest, before_rest, carry)
    return *lax.fori_loop(0, count, step, carry), None, None


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _chunks(
    run: Run,
    length: int,
    reverse: bool,
    params: Any,
    series: Series,
    state: State,
    lengths: Array | None,
    resets: Array | None,
) -> tuple[Array, State]:
    return _forward(run, length, reverse, params, series, state, lengths, resets)[0]


_chunks.defvjp(_forward, traced_once(_backward, static_argnums=(0, 1, 2)))
_chunks_once = traced_once(_chunks, static_argnums=(0, 1, 2))
