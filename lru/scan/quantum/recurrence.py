"""Recurrence of the quantum network over time, exact, without its in/out lanes.

Until the outputs are made, the in/out lanes hold the input word, so that the input and the work
stages are a linear map U_x [2^w, 2^w] of the workspace, one for each of the V = 2^i words. The
output neurons turn lanes that are still |0>, so that they make the amplitudes D_y h of each word y,
with diagonal D_y. A step is

    h = U_x h / |U_x h|,   p(y) = |D_y h|^2 / sum over y' of |D_y' h|^2,   h = D_y h / |D_y h|

with the word y that is post-selected or measured. The maps are made once for all steps
("operators"), or the neurons are applied at every step ("neurons"), which takes less where a
workspace is large and the rows are few.
"""

from functools import partial
from typing import Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, Int, Integer, Key

from lru.scan.methods import step_counts
from lru.scan.quantum.neurons import Activation, Weights, tables, turned

Method = Literal["auto", "operators", "neurons"]

HALVINGS = {"float32": 100, "float64": 900}
"""Halvings of an amplitude of 1 after which its square is still far from the least number."""


class Measured(NamedTuple):
    """Outcomes of all steps.

    Attributes:
        probabilities: of each word [B, T, V].
        words: that were post-selected or measured [B, T].
        states: amplitudes of the workspace after each step [B, T, 2^w], if they are asked for.
    """

    probabilities: Float[Array, "B T V"]
    words: Int[Array, "B T"]
    states: Float[Array, "B T states"] | None = None


def quantum_scan(
    weights: Weights,
    activation: Activation,
    words: Integer[Array, "B T"],
    postselected: Integer[Array, "B T"],
    state: Float[Array, "B states"],
    *,
    key: Key[Array, ""] | None = None,
    lengths: Integer[Array, " B"] | None = None,
    resets: Bool[Array, "B T"] | None = None,
    method: Method = "auto",
    observe: bool = False,
) -> tuple[Measured, Float[Array, "B states"]]:
    """Run the cell over time; differentiable in weights and state.

    Args:
        weights: of the cell.
        activation: of its neurons.
        words: that are read, from 0 to V - 1.
        postselected: word on which the output of a step is projected; -1 to measure it.
        state: amplitudes of the workspace before the first step, normalised.
        key: draws what is measured by its probability; None takes the most probable word.
        lengths: number of valid steps of right-padded rows; at padding the state stays, and
            outcomes carry no meaning.
        resets: True where a row starts from |0...0> afresh.
        method: "operators" or "neurons"; "auto" takes the faster one.
        observe: give the state after each step, too.

    Returns:
        The outcomes, and the amplitudes after the last valid step of each row.
    """
    (w, i), (rows, steps) = weights.lanes, words.shape
    stages, dtype = len(weights.theta), state.dtype
    if method == "auto":
        method = faster_method(w, i, rows * steps, stages * w, activation.order, str(dtype))
    stage_tables = _stage_tables(weights, activation)
    outputs = output_amplitudes(weights, activation)
    advance = (
        partial(_by_operators, operators(stage_tables, i), i)
        if method == "operators"
        else partial(_by_neurons, stage_tables, _rescales_each(activation.order, w, str(dtype)))
    )
    fresh = jnp.zeros((2**w, 1), dtype).at[0].set(1)

    def step(h: Array, at_t: tuple) -> tuple[Array, tuple]:
        word, wanted, valid, reset, key = at_t
        before = h
        h = h if reset is None else jnp.where(reset, fresh, h)
        h = _rescaled(advance(h, word))
        p = jnp.dot(outputs.T**2, h**2, precision=lax.Precision.HIGHEST)
        p = p / p.sum(axis=0)
        measured = p.argmax(axis=0)
        if key is not None:
            measured = jax.random.categorical(key, jnp.log(p), axis=0)
        chosen = jnp.where(wanted < 0, measured, wanted)
        h = _rescaled(_picked(outputs, chosen) * h)
        h = h / jnp.sqrt(jnp.sum(h**2, axis=0))
        h = h if valid is None else jnp.where(valid, h, before)
        return h, (p, chosen, h if observe else None)

    counts = step_counts(lengths, steps)
    valid = None if counts is None else jnp.arange(steps)[:, None] < counts
    keys = None if key is None else jax.random.split(key, steps)
    at_all = (words.T, postselected.T, valid, None if resets is None else resets.T, keys)
    # Recomputed in the backward pass: what is kept of a step is the state before it.
    h, (p, chosen, states) = lax.scan(jax.checkpoint(step), state.T, at_all)
    states = None if states is None else states.transpose(2, 0, 1)
    return Measured(p.transpose(2, 0, 1), chosen.T, states), h.T


def faster_method(
    w: int, i: int, columns: int, neurons: int, order: int, dtype: str
) -> Literal["operators", "neurons"]:
    """The method that takes less time, among those in which no amplitude can vanish by rounding.

    Args:
        w: lanes of the workspace.
        i: lanes of input and output.
        columns: rows times steps.
        neurons: of all stages.
        order: of the neurons.
        dtype: of the amplitudes.
    """
    if neurons * _halvings(order) > HALVINGS[dtype]:
        return "neurons"
    by_neurons = columns * neurons
    by_operators = 2 ** (i + w) * (neurons + columns / PRODUCTS_AT_ONCE)
    return "operators" if by_operators <= by_neurons else "neurons"


PRODUCTS_AT_ONCE = 200.0
"""Multiply-adds of a matrix product in the time in which a neuron changes one amplitude
(`benchmarks/quantum.py`)."""


def _halvings(order: int) -> float:
    """The most halvings of amplitudes by a neuron: c = s = 2^(-2^order / 2), beside at most 1."""
    return (2**order - 1) / 2


def _rescales_each(order: int, w: int, dtype: str) -> bool:
    return w * _halvings(order) > HALVINGS[dtype]


def _rescaled(h: Float[Array, "states *rest"]) -> Float[Array, "states *rest"]:
    """States with a largest amplitude of 1, so that squares are far from the least number.

    As they are normalised later, the factor is of no account, and has no gradient.
    """
    largest = lax.stop_gradient(jnp.max(jnp.abs(h), axis=0))
    return h / jnp.where(largest > 0, largest, 1)


def _stage_tables(weights: Weights, activation: Activation) -> tuple[Array, Array, Array]:
    """Cosines and sines of all stages [1 + S, w, 2^(w - 1), V], and the angles before them."""
    w, i = weights.lanes
    c, s = (
        x.reshape(*x.shape[:2], 2 ** (w - 1), 2**i)
        for x in tables(weights.phi, weights.theta, w + i - 1, activation)
    )
    return c, s, jnp.pad(weights.rotations, ((1, 0), (0, 0)))


def _stage(h: Array, c: Array, s: Array, angles: Array, *, rescale: bool = False) -> Array:
    """States [2^w, ...] after the rotations and neurons of a stage."""
    flat = (1,) * h.ndim
    cosines, sines = jnp.cos(angles / 2), jnp.sin(angles / 2)
    for lane in range(len(angles)):
        h = turned(h, lane, cosines[lane].reshape(flat), sines[lane].reshape(flat))
    for lane in range(len(angles)):
        h = turned(h, lane, c[lane], s[lane])
        h = _rescaled(h) if rescale else h
    return h


def operators(stage_tables: tuple[Array, Array, Array], i: int) -> Float[Array, "states columns"]:
    """The maps U_x of all words side by side, [2^w, V 2^w], up to one factor."""
    c, s, angles = stage_tables
    size = 2 ** c.shape[1]
    start = jnp.broadcast_to(jnp.eye(size, dtype=c.dtype)[:, None], (size, 2**i, size))
    over_stages = (c[..., None], s[..., None], angles)
    maps, _ = lax.scan(lambda h, stage: (_stage(h, *stage), None), start, over_stages)
    return maps.reshape(size, -1)


def _by_operators(maps: Array, i: int, h: Array, word: Array) -> Array:
    placed = (_one_hot(word, 2**i, h)[:, None] * h).reshape(-1, h.shape[1])
    return jnp.dot(maps, placed, precision=lax.Precision.HIGHEST)


def _by_neurons(
    stage_tables: tuple[Array, Array, Array], rescale: bool, h: Array, word: Array
) -> Array:
    def stage(h: Array, tables: tuple[Array, Array, Array]) -> tuple[Array, None]:
        c, s, angles = tables
        c, s = (_picked(x, word) for x in (c, s))
        return _rescaled(_stage(h, c, s, angles, rescale=rescale)), None

    return lax.scan(stage, h, stage_tables)[0]


def _one_hot(word: Array, n_words: int, like: Array) -> Float[Array, "V R"]:
    return jax.nn.one_hot(word, n_words, dtype=like.dtype, axis=0)


def _picked(table: Float[Array, "*rest V"], word: Array) -> Float[Array, "*rest R"]:
    """Entries of a table for the word of each row.

    By a product, as its transpose is one: gradients of a gather would be added one by one.
    """
    chosen = _one_hot(word, table.shape[-1], table)
    return jnp.dot(table, chosen, precision=lax.Precision.HIGHEST)


def output_amplitudes(weights: Weights, activation: Activation) -> Float[Array, "states V"]:
    """The diagonals D_y of all output words, up to one factor."""
    w, i = weights.lanes
    c, s = tables(weights.output_phi, weights.output_theta, w + i - 1, activation)
    amplitudes = jnp.ones((2**w, 1), c.dtype)
    for lane in range(i):
        # The lanes before it hold the first bits of the word, those after it are still 0.
        known = (x[lane].reshape(2**w, 2**lane, -1)[:, :, 0] for x in (c, s))
        parts = jnp.stack([amplitudes * x for x in known], axis=2)
        amplitudes = cast(Array, parts).reshape(2**w, -1)
    return amplitudes
