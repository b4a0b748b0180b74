"""The oracle: the circuit of Bausch 2020 (arXiv 2006.14619), gate after gate, ancillas included.

A state is a real array with an axis of length 2 for each lane: in/out lanes, then the workspace,
then the ancillas. Every post-selection projects and normalises. `lru.scan.quantum` must agree with
these functions, whose gradients are plain autodiff.
"""

import itertools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Integer

from lru.scan.quantum.neurons import Activation, Weights

State = Float[Array, "..."]
Gate = Callable[[State], State]


def rotation(angle: Array | float) -> Float[Array, "2 2"]:
    """Ry: |0> to cos(angle / 2) |0> + sin(angle / 2) |1>."""
    cosine, sine = jnp.cos(angle / 2), jnp.sin(angle / 2)
    return jnp.stack([jnp.stack([cosine, -sine]), jnp.stack([sine, cosine])])


def applied(state: State, matrix: Array, lane: int, controls: Sequence[int] = ()) -> State:
    """The state after a gate on a lane, where all controls are 1."""
    changed = jnp.moveaxis(jnp.tensordot(matrix, state, axes=(1, lane)), 0, lane)
    where = tuple(1 if axis in controls else slice(None) for axis in range(state.ndim))
    return state.at[where].set(changed[where])


def selected(state: State, lane: int, bit: Array | int) -> State:
    """The state projected on a bit of a lane, and normalised."""
    axis = [1] * state.ndim
    axis[lane] = 2
    kept = state * (jnp.arange(2) == bit).reshape(axis)
    return kept / jnp.sqrt(jnp.sum(kept**2))


def flipped(state: State, lane: int, when: Array | bool) -> State:
    """The state after an X gate on a lane, where `when` is true."""
    return jnp.where(when, jnp.flip(state, lane), state)


def neuron(
    state: State,
    target: int,
    sources: Sequence[int],
    ancillas: Sequence[int],
    phi: Float[Array, " P"],
    theta: Float[Array, ""],
    activation: Activation,
) -> State:
    """The state after a quantum neuron: figure 2 of the paper, repeated until success.

    Args:
        state: before.
        target: lane that turns.
        sources: lanes that are read, in the order of the weights.
        ancillas: one for each order, all |0>.
        phi: weights of subsets of the sources.
        theta: bias.
        activation: order, degree and the bias added to theta.
    """
    controls = [
        chosen
        for size in range(activation.degree + 1)
        for chosen in itertools.combinations(sources, size)
    ]
    angles = [activation.bias + theta, *phi]
    next_lanes = [*ancillas[1:], target]

    def block(state: State, level: int, *, dagger: bool) -> State:
        quarter = rotation(-jnp.pi if dagger else jnp.pi).astype(state.dtype)
        ancilla, into = ancillas[level], next_lanes[level]
        if level:
            state = block(state, level - 1, dagger=False)
        else:
            for angle, of in zip(angles, controls, strict=True):
                state = applied(state, rotation(angle), ancilla, of)
        state = applied(state, quarter, into, [ancilla])
        if level:
            state = block(state, level - 1, dagger=True)
        else:
            for angle, of in zip(angles[::-1], controls[::-1], strict=True):
                state = applied(state, rotation(-angle), ancilla, of)
        return selected(state, ancilla, 0)

    return block(state, activation.order - 1, dagger=False)


def cell(
    weights: Weights, activation: Activation, state: Float[Array, " states"], word: Array
) -> Float[Array, "V states"]:
    """Amplitudes [V, 2^w] of all output words after one step from a state of the workspace."""
    w, i = weights.lanes
    ports, workspace = list(range(i)), list(range(i, i + w))
    ancillas = list(range(i + w, i + w + activation.order))
    bits = [word >> (i - 1 - lane) & 1 for lane in ports]
    full = jnp.zeros((2**i, 2**w, 2**activation.order), state.dtype).at[0, :, 0].set(state)
    full = full.reshape((2,) * (i + w + activation.order))

    def neurons(full: State, targets: list[int], phi: Array, theta: Array) -> State:
        for k, target in enumerate(targets):
            sources = [lane for lane in (*workspace, *ports) if lane != target]
            full = neuron(full, target, sources, ancillas, phi[k], theta[k], activation)
        return full

    for lane, bit in zip(ports, bits, strict=True):
        full = flipped(full, lane, bit == 1)
    for stage in range(len(weights.theta)):
        if stage:
            for lane, angle in zip(workspace, weights.rotations[stage - 1], strict=True):
                full = applied(full, rotation(angle), lane)
        full = neurons(full, workspace, weights.phi[stage], weights.theta[stage])
    for lane, bit in zip(ports, bits, strict=True):
        full = flipped(full, lane, bit == 1)
    full = neurons(full, ports, weights.output_phi, weights.output_theta)
    return full.reshape(2**i, 2**w, -1)[:, :, 0]


def quantum_scan(
    weights: Weights,
    activation: Activation,
    words: Integer[Array, "B T"],
    postselected: Integer[Array, "B T"],
    state: Float[Array, "B states"],
) -> tuple[Float[Array, "B T V"], Float[Array, "B states"]]:
    """Probabilities of the words at every step, and the last state; all words are post-selected.

    Arguments are those of `lru.scan.quantum.quantum_scan`.
    """

    def step(h: Array, word: Array, wanted: Array) -> tuple[Array, Array]:
        amplitudes = cell(weights, activation, h, word)
        chosen = amplitudes[wanted]
        return chosen / jnp.sqrt(jnp.sum(chosen**2)), jnp.sum(amplitudes**2, axis=1)

    probabilities = []
    for t in range(words.shape[1]):
        state, p = jax.vmap(step)(state, words[:, t], postselected[:, t])
        probabilities.append(p)
    return jnp.stack(probabilities, axis=1), state
