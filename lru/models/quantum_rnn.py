"""Quantum recurrent network: a register of qubits, turned by quantum neurons, measured every step.

Bausch 2020, Recurrent Quantum Neural Networks (NeurIPS; arXiv 2006.14619), section 3, simulated
exactly; the mathematics is in `lru.scan.quantum`. Letters: w lanes of the workspace, i of input
and output, V = 2^i words.
"""

import itertools
import math
from decimal import Decimal
from typing import Any, ClassVar, cast

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import normal
from jaxtyping import Array, Bool, Float, Int, Integer, Key

from lru.devices import bytes_of_device
from lru.models.network import NETWORKS, Network
from lru.scan.quantum import Activation, Measured, Weights, n_subsets, quantum_scan

LARGEST_ORDER = 6
"""Of a neuron: c = s = 2^-31.5 there where it turns by a right angle, near the least of float32."""


@NETWORKS.register("quantum-rnn")
class QuantumRNN(Network):
    """Quantum recurrent network of Bausch (2020): unitary, post-selected, simulated exactly.

    Attributes:
        n_words: number V of words.
        workspace: number w of lanes of the state.
        activation: constants of its neurons.
        weights: parameters by the names of `lru.scan.quantum.Weights`.
    """

    task = "measurement"
    of_draw: ClassVar[tuple[str, ...]] = (
        "initial_bias_spread",
        "initial_weights_spread",
        "initial_unitaries_spread",
    )

    def __init__(
        self,
        n_words: int,
        *,
        workspace: int = 3,
        stages: int = 2,
        order: int = 2,
        degree: int = 2,
        initial_bias: float = 1.570796,
        initial_bias_spread: float = 0.1,
        initial_weights_spread: float = 0.01,
        initial_unitaries_spread: float = 0.01,
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        """Draw the parameters.

        Args:
            n_words: number V of words, a power of two.
            workspace: number w of qubits that are carried on.
            stages: number S of work stages, each w rotations and w neurons, after the input stage.
            order: of the neurons; the higher, the steeper their activation.
            degree: largest set of qubits with a weight of its own in a neuron.
            initial_bias: constant in the angle of every neuron, in radians; no parameter.
            initial_bias_spread: standard deviation of the initial biases of neurons.
            initial_weights_spread: standard deviation of the initial weights of neurons.
            initial_unitaries_spread: standard deviation of the initial angles of rotations.
            dtype: type of parameters and amplitudes, float32 or float64.
            rngs: source of the initial parameters (`params`).

        Raises:
            ValueError: if an option is out of range, or n_words is no power of two.
        """
        i = n_words.bit_length() - 1
        if n_words < 2 or n_words != 2**i:
            raise ValueError(f"n_words must be a power of two, at least 2, got {n_words}")
        for name, value, least in (
            ("workspace", workspace, 1),
            ("stages", stages, 0),
            ("degree", degree, 1),
        ):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        for name, spread in (
            ("initial_bias_spread", initial_bias_spread),
            ("initial_weights_spread", initial_weights_spread),
            ("initial_unitaries_spread", initial_unitaries_spread),
        ):
            if not 0 <= spread < math.inf:
                raise ValueError(f"{name} must be finite and not negative, got {spread}")
        if not math.isfinite(initial_bias):
            raise ValueError(f"initial_bias must be finite, got {initial_bias}")
        if not 1 <= order <= LARGEST_ORDER:
            raise ValueError(f"order must be from 1 to {LARGEST_ORDER}, got {order}")
        if dtype not in ("float32", "float64"):
            raise ValueError(f"dtype must be float32 or float64, got {dtype!r}")
        if dtype == "float64" and not jax.config.jax_enable_x64:  # pyright: ignore
            raise ValueError("dtype float64 needs JAX_ENABLE_X64=1 in the environment")
        _check_fits(workspace, i, stages, degree, jnp.dtype(dtype).itemsize)
        self.n_words, self.workspace = n_words, workspace
        self.activation = Activation(order, degree, initial_bias)

        def draw(spread: float, *shape: int) -> nnx.Param:
            return nnx.Param(normal(spread)(rngs.params(), shape, jnp.dtype(dtype)))

        n_weights = n_subsets(workspace + i - 1, degree)
        self.phi = draw(initial_weights_spread, 1 + stages, workspace, n_weights)
        self.theta = draw(initial_bias_spread, 1 + stages, workspace)
        self.rotations = draw(initial_unitaries_spread, stages, workspace)
        self.output_phi = draw(initial_weights_spread, i, n_weights)
        self.output_theta = draw(initial_bias_spread, i)

    @property
    def weights(self) -> Weights:
        """The parameters, for `lru.scan.quantum`."""
        return Weights(*(getattr(self, name)[...] for name in Weights._fields))

    def initial_state(self, batch_size: int) -> Float[Array, "B states"]:
        """Amplitudes of |0...0>."""
        size = (batch_size, 2**self.workspace)
        return jnp.zeros(size, self.theta[...].dtype).at[:, 0].set(1)

    def __call__(
        self,
        words: Integer[Array, "B T"],
        postselected: Integer[Array, "B T"] | None = None,
        state: Float[Array, "B states"] | None = None,
        *,
        lengths: Integer[Array, " B"] | None = None,
        resets: Bool[Array, "B T"] | None = None,
        key: Key[Array, ""] | None = None,
        observe: bool = False,
    ) -> tuple[Measured, Float[Array, "B states"]]:
        """Read words, and post-select or measure a word after each.

        Args:
            words: from 0 to V - 1.
            postselected: word on which the output of a step is projected; -1, or None for all
                steps, to measure it.
            state: amplitudes of the workspace to start from; None for |0...0>.
            lengths: number of valid steps of each right-padded row; None if all are valid.
            resets: True where a row starts from |0...0> afresh.
            key: draws what is measured by its probability; None takes the most probable word.
            observe: give the state after each step, too.

        Returns:
            Probabilities of all words at each step, and the words that were post-selected or
            measured; and the state after the last valid step.

        Raises:
            ValueError: if an argument has the wrong shape or type.
        """
        if words.ndim != 2 or not jnp.issubdtype(words.dtype, jnp.integer):
            raise ValueError(
                f"words have shape {words.shape} and dtype {words.dtype}, but integers [B, T] are "
                "allowed"
            )
        if postselected is None:
            postselected = jnp.full(words.shape, -1)
        start = self.initial_state(words.shape[0]) if state is None else state
        for name, given, allowed in (
            ("postselected", postselected, words.shape),
            ("state", start, (words.shape[0], 2**self.workspace)),
        ):
            if given.shape != allowed:
                raise ValueError(f"{name} has shape {given.shape}, but {allowed} is allowed")
        return quantum_scan(
            self.weights,
            self.activation,
            words,
            postselected,
            start,
            key=key,
            lengths=lengths,
            resets=resets,
            observe=observe,
        )

    def step(
        self,
        words_t: Integer[Array, " B"],
        state: Float[Array, "B states"],
        postselected_t: Integer[Array, " B"] | None = None,
        *,
        key: Key[Array, ""] | None = None,
    ) -> tuple[Measured, Float[Array, "B states"]]:
        """Advance one step: outcomes without the axis of time, and the state after it."""
        wanted = None if postselected_t is None else postselected_t[:, None]
        outcome, state = self(words_t[:, None], wanted, state, key=key)
        return Measured(outcome.probabilities[:, 0], outcome.words[:, 0]), state

    def observe(
        self,
        words: Integer[Array, "B T"],
        postselected: Integer[Array, "B T"] | None = None,
        state: Float[Array, "B states"] | None = None,
        **options: Any,
    ) -> dict[str, Float[Array, "B T N"]]:
        """The amplitudes of the workspace under "state" and the "probabilities" at every step.

        Arguments are those of a call.
        """
        outcome, _ = self(words, postselected, state, observe=True, **options)
        return {"state": cast(Array, outcome.states), "probabilities": outcome.probabilities}

    def generate(
        self,
        words: Integer[Array, " B"],
        n_steps: int,
        key: Key[Array, ""],
        state: Float[Array, "B states"] | None = None,
    ) -> Int[Array, "B n_steps"]:
        """Words that are drawn one after another, each read at the next step.

        Args:
            words: that are read first.
            n_steps: number of words to draw.
            key: draws them.
            state: to start from; None for |0...0>.
        """

        def step(carry: tuple[Array, Array], key: Array) -> tuple[tuple[Array, Array], Array]:
            outcome, state = self.step(*carry, key=key)
            return (outcome.words, state), outcome.words

        start = self.initial_state(len(words)) if state is None else state
        _, drawn = jax.lax.scan(
            step, (jnp.asarray(words, int), start), jax.random.split(key, n_steps)
        )
        return drawn.T


def _check_fits(workspace: int, i: int, stages: int, degree: int, itemsize: int) -> None:
    """Refuse a workspace whose tables alone are larger than the memory.

    Raises:
        ValueError: with the bytes that are needed, and the workspace that would fit.
    """

    def needed(w: int) -> int:
        sources = w + i - 1
        return itemsize * 2**sources * (n_subsets(sources, degree) + 2 * w * (1 + stages) + 2 * i)

    there = bytes_of_device()
    fits = sum(1 for _ in itertools.takewhile(lambda w: needed(w) <= there, itertools.count(1)))
    if workspace > fits:
        raise ValueError(
            f"workspace {workspace} with stages {stages} and degree {degree} needs "
            f"{Decimal(needed(workspace)):.2e} bytes for the tables of its neurons, but there are "
            f"{Decimal(there):.2e}; workspace {fits} would fit"
        )
