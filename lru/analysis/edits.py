"""States that are overwritten while a model runs: patched at one step, silenced at every one.

A model is anything with the contract of a layer whose state has one part a layer: a recurrent
layer, a body, a `CellStack`, a `Classifier` or a `LanguageModel`. All runs are in evaluation mode.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float, Inexact, Integer

from lru.analysis.states import recurrent_layers
from lru.layers import LinearRNN, RecurrentLayer
from lru.layers.base import NoStepError, State
from lru.layers.bidirectional import Bidirectional
from lru.layers.stack import CellStack, Stack
from lru.models.classifier import ClassifierState
from lru.scan.methods import step_counts, valid_steps

Edit = Callable[[list[State]], list[State]]
Which = Sequence[int] | Array | np.ndarray

# Above this condition number of the eigenvectors a projection along them means nothing.
DEFECTIVE = 1e10


def patch(
    model: Any,
    inputs: Array,
    at: int,
    other: Any,
    layers: Sequence[int] | None = None,
    *,
    pooled: bool = False,
    state: Any = None,
    lengths: Integer[Array, " B"] | None = None,
    resets: Bool[Array, "B T"] | None = None,
) -> tuple[Inexact[Array, "B ..."], Any]:
    """Run over a sequence, and in the middle let layers go on from other states than their own.

    A classifier with mean pooling goes on pooling: the features of the steps before count as they
    were, unless `pooled` overwrites their sum as well. With `last` the features of the last step,
    which come after the patch, are all that is read.

    Args:
        model: see the head of this module.
        inputs: [B, T, ...].
        at: number of steps after which states are overwritten, from 1 to T - 1.
        other: state of the model for as many rows, such as that after so many steps of others:
            `model(other_inputs[:, :at])[1]`.
        layers: numbers of the layers that take over theirs, from 0 on; None for all.
        pooled: overwrite what a classifier has gathered for its pooling, too.
        state: where to start; None for the initial state.
        lengths: number of valid steps of each row; a row that has ended by then is not patched.
        resets: True where a row starts afresh.

    Returns:
        Outputs, of all steps if the model has one a step; and the state after the last valid step.

    Raises:
        NoStepError: if the model reads in both directions.
        ValueError: if an argument does not fit.
    """
    n_layers, steps = len(_checked(model)), inputs.shape[1]
    if not 1 <= at < steps:
        raise ValueError(f"at must be from 1 to T - 1 = {steps - 1}, got {at}")
    chosen = range(n_layers) if layers is None else layers
    for layer in chosen:
        _check_layer("layers", layer, n_layers)
    counts = step_counts(lengths, steps)
    before, after = (None, None) if counts is None else (jnp.minimum(counts, at), counts - at)
    goes_on = None if after is None else after > 0
    cut = (None, None) if resets is None else (resets[:, :at], resets[:, at:])
    outputs, reached = model(inputs[:, :at], state, lengths=before, resets=cut[0])
    shapes = [jax.tree.map(jnp.shape, tree) for tree in (other, reached)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"other has shape {shapes[0]}, but the model allows {shapes[1]}")
    own, rebuild = _parts(reached)
    theirs = _parts(other)[0]
    patched = rebuild(
        [_chosen(goes_on, theirs[i], own[i]) if i in chosen else own[i] for i in range(n_layers)]
    )
    pools = getattr(reached, "pooled", None) is not None
    if pooled:
        if not pools:
            raise ValueError("pooled must be False for a model that pools nothing, got True")
        patched = patched._replace(pooled=_chosen(goes_on, other.pooled, reached.pooled))
    after = None if after is None else jnp.maximum(after, 0)
    more, last = model(inputs[:, at:], patched, lengths=after, resets=cut[1])
    return (more if pools else jnp.concatenate([outputs, more], axis=1)), last


def ablate(
    model: Any,
    inputs: Array,
    units: Mapping[int, Which] | None = None,
    modes: Mapping[int, Which] | None = None,
    *,
    state: Any = None,
    lengths: Integer[Array, " B"] | None = None,
    resets: Bool[Array, "B T"] | None = None,
) -> tuple[Inexact[Array, "B ..."], Any]:
    """Run over a sequence while units, or eigenmodes, of the state remember nothing.

    They are taken out of every state that a step starts from. What a step itself writes into them
    is still read at that step.

    Args:
        model: see the head of this module; it runs step by step.
        inputs: [B, T, ...].
        units: of layers by number, numbers of their units from 0 to N - 1, or True for those to
            silence [N]: entries of the vectors [B, N] of the state, such as both h and c of an
            LSTM, or the complex modes of a diagonal layer.
        modes: the same of dense linear RNNs, of the eigenmodes of their matrix in the order of
            `eigenvalues`, by real then imaginary part. A complex pair goes together. The others
            stay as they are.
        state: where to start; None for the initial state.
        lengths: number of valid steps of each row.
        resets: True where a row starts afresh.

    Returns:
        What a call of the model does: outputs, and the state after the last valid step.

    Raises:
        NoStepError: if the model reads in both directions.
        ValueError: if an argument does not fit.
    """
    layers = _checked(model)
    edits: list[tuple[int, Callable[[State], State]]] = []
    for name, chosen, make in (("units", units, _silencer), ("modes", modes, _projector)):
        for number, which in (chosen or {}).items():
            _check_layer(name, number, len(layers))
            layer = layers[number]
            edits.append((number, make(layer, _mask(name, which, layer.d_hidden), number)))

    def edit(states: list[State]) -> list[State]:
        states = list(states)
        for number, change in edits:
            states[number] = change(states[number])
        return states

    return run_edited(model, inputs, edit, state=state, lengths=lengths, resets=resets)


def run_edited(
    model: Any,
    inputs: Array,
    edit: Edit,
    *,
    state: Any = None,
    lengths: Integer[Array, " B"] | None = None,
    resets: Bool[Array, "B T"] | None = None,
) -> tuple[Inexact[Array, "B ..."], Any]:
    """Run over a sequence step by step, with states that are edited before every step.

    Args:
        model: see the head of this module.
        inputs: [B, T, ...].
        edit: takes the list of the states of all layers and returns it changed, in the same shapes
            and types. It also edits the state to start from and that which is returned.
        state: where to start; None for the initial state.
        lengths: number of valid steps of each row; padding leaves the state as it is.
        resets: True where a row starts afresh.

    Returns:
        What a call of the model does: outputs, and the state after the last valid step.

    Raises:
        NoStepError: if the model reads in both directions.
        ValueError: if the model, or lengths, do not fit.
    """
    _checked(model)
    counts = step_counts(lengths, inputs.shape[1])
    fresh = model.initial_state(inputs.shape[0])

    def edited(state: Any) -> Any:
        states, rebuild = _parts(state)
        return rebuild(edit(states))

    def advance(state: Any, at_t: tuple[Array, Array | None, Array | None]) -> tuple[Any, Array]:
        x_t, valid_t, reset_t = at_t
        before = state
        if reset_t is not None:
            states, rebuild = _parts(state)
            before = rebuild(_chosen(reset_t, _parts(edited(fresh))[0], states))
        y_t, after = model.step(x_t, before)
        return _chosen(valid_t, edited(after), state), y_t

    over_time = (inputs, valid_steps(inputs, counts), resets)
    over_time = jax.tree.map(lambda values: jnp.moveaxis(values, 1, 0), over_time)
    last, outputs = lax.scan(advance, edited(fresh if state is None else state), over_time)
    if getattr(last, "pooled", None) is None:
        return jnp.moveaxis(outputs, 0, 1), last
    # What a classifier says after no further step is what it says of all before.
    none = jnp.zeros(inputs.shape[0], jnp.int32)
    return model(inputs[:, :1], last, lengths=none)[0], last


def _checked(model: Any) -> list[RecurrentLayer]:
    """The layers of a model that reads forwards and hands on one state a layer."""
    layers = recurrent_layers(model) if isinstance(model, nnx.Module) else []
    inside = [module for _, module in nnx.iter_modules(model)] if layers else []
    if any(
        isinstance(module, Bidirectional)
        or (isinstance(module, CellStack) and module.n_directions > 1)
        for module in inside
    ):
        raise NoStepError(
            "model must read forwards alone for its state to be edited, but this one is "
            "bidirectional: its output needs the future"
        )
    # A `Stack` joins the states of its layers.
    start = None if isinstance(model, Stack) else getattr(model, "initial_state", None)
    if not layers or start is None or len(_parts(start(1))[0]) != len(layers):
        raise ValueError(
            "model must be a recurrent layer, a body, a CellStack, a Classifier or a "
            f"LanguageModel, with one state a layer, got a {type(model).__name__}"
        )
    return layers


def _parts(state: Any) -> tuple[list[State], Callable[[list[State]], Any]]:
    """The states of all layers, and a function that puts others in their place."""
    if isinstance(state, ClassifierState):
        return state.blocks, lambda states: state._replace(blocks=states)
    if isinstance(state, list):
        return state, lambda states: states
    return [state], lambda states: states[0]


def _chosen(rows: Bool[Array, " B"] | None, new: Any, old: Any) -> Any:
    """The new tree in these rows, or in all."""
    if rows is None:
        return new
    return jax.tree.map(
        lambda n, o: jnp.where(rows.reshape(-1, *(1,) * (o.ndim - 1)), n, o), new, old
    )


def _check_layer(name: str, number: int, n_layers: int) -> None:
    if not 0 <= number < n_layers:
        raise ValueError(f"{name} must be of layers from 0 to {n_layers - 1}, got {number}")


def _mask(name: str, which: Which, width: int) -> np.ndarray:
    """True for those of N that are given by number, or by True."""
    given = np.asarray(which)
    if given.dtype == bool and given.shape == (width,):
        return given
    known = np.issubdtype(given.dtype, np.integer) or given.size == 0
    if given.ndim != 1 or not known or np.any((given < 0) | (given >= width)):
        raise ValueError(
            f"{name} must be numbers from 0 to N - 1 = {width - 1} or booleans [N], got {which}"
        )
    mask = np.zeros(width, bool)
    mask[given.astype(int)] = True
    return mask


def _silencer(
    layer: RecurrentLayer, silent: Bool[np.ndarray, " N"], number: int
) -> Callable[[State], State]:
    shape = (1, layer.d_hidden)
    if not any(leaf.shape == shape for leaf in jax.tree.leaves(layer.initial_state(1))):
        raise ValueError(f"units must be of a layer with states [B, N], got layer {number}")

    def silence(leaf: Inexact[Array, "B ..."]) -> Inexact[Array, "B ..."]:
        return jnp.where(silent, 0, leaf) if leaf.shape[1:] == shape[1:] else leaf

    return lambda state: jax.tree.map(silence, state)


def _projector(
    layer: RecurrentLayer, gone: Bool[np.ndarray, " N"], number: int
) -> Callable[[State], State]:
    if not isinstance(layer, LinearRNN):
        raise ValueError(
            "modes must be of dense linear RNNs (rnn), whose state has eigenmodes; the modes of "
            f"diagonal layers are units; got layer {number}, a {type(layer).__name__}"
        )
    projection = jnp.asarray(without_modes(np.asarray(layer.A[...]), gone))
    return lambda h: h @ projection.T.astype(h.dtype)


def without_modes(
    A: Float[np.ndarray, "N N"], gone: Bool[np.ndarray, " N"]
) -> Float[np.ndarray, "N N"]:
    """The projection P [N, N] that takes eigenmodes out of a state: P h has no part along them.

    Args:
        A: matrix of the recurrence h' = A h.
        gone: True for the eigenmodes to take out, in the order of the eigenvalues by real then
            imaginary part; the conjugate of each goes with it.

    Raises:
        ValueError: if A has too few eigenvectors.
    """
    values, vectors = np.linalg.eig(np.asarray(A, np.float64))
    order = np.argsort(values.astype(complex))
    values, vectors = values[order], vectors[:, order]
    if np.linalg.cond(vectors) > DEFECTIVE:
        raise ValueError("modes must be of a matrix that can be diagonalised, got one that cannot")
    partners = np.abs(values[:, None] - values.conj()).argmin(axis=0)
    kept = ~(gone | gone[partners])
    return (vectors * kept @ np.linalg.inv(vectors)).real
