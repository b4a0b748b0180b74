"""Text from the model of a run, and what states and gates do while it is read."""

from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from lru.analysis.plots import plot_observed
from lru.layers.base import State
from lru.models.generation import generate
from lru.models.sampling import Sampler
from lru.text.loading import TrainedText
from lru.training.config import LARGEST_SEED


class Writing(NamedTuple):
    """A text that a model has written.

    Attributes:
        tokens: of the prompt, and those that were drawn.
        text: the same, as it is read.
    """

    tokens: list[str]
    text: str


@partial(jax.jit, static_argnums=0)
def _step(
    graphdef: nnx.GraphDef, weights: nnx.State, tokens: jax.Array, state: State
) -> tuple[jax.Array, State]:
    """One token of each row, compiled once for all texts of a model."""
    return nnx.merge(graphdef, weights).step(tokens, state)


def write(loaded: TrainedText, prompt: str, n_tokens: int, sampler: Sampler, seed: int) -> Writing:
    """Continue a prompt, which stands at the beginning of a line.

    Args:
        loaded: the model.
        prompt: may be empty.
        n_tokens: how many to draw.
        sampler: the rule of the draws.
        seed: of the draws.

    Raises:
        ValueError: if the prompt has tokens that are not in the vocabulary, n_tokens is negative,
            or the seed is out of range.
    """
    if not 0 <= seed <= LARGEST_SEED:
        raise ValueError(f"seed must be from 0 to {LARGEST_SEED}, got {seed}")
    if n_tokens < 0:
        raise ValueError(f"n_tokens must not be negative, got {n_tokens}")
    vocabulary, model = loaded.vocabulary, loaded.model
    given = loaded.corpus.split(prompt)
    read = loaded.encode(given)
    draws = generate(
        partial(_step, *nnx.split(model)),
        model.initial_state(1),
        read,
        sampler,
        jax.random.key(seed),
    )
    drawn = [vocabulary[int(token[0])] for token in islice(draws, n_tokens)]
    tokens = [*given, *drawn]
    return Writing(tokens, loaded.corpus.join(tokens))


def draw_gates(loaded: TrainedText, tokens: Sequence[str], folder: Path) -> list[Path]:
    """Draw states and gates of every layer against the tokens.

    Args:
        loaded: the model.
        tokens: what it reads, from the beginning of a line.
        folder: of the pictures, `gates-1.png` and so on.

    Returns:
        The pictures, layer by layer.

    Raises:
        ValueError: if the body of the model cannot be observed, or there is no token.
    """
    if not tokens:
        raise ValueError("prompt must have a token to draw gates against, got nothing")
    try:
        layers = loaded.model.observe(jnp.asarray(loaded.encode(tokens)))
    except NotImplementedError:
        model = loaded.trained.config.model
        raise ValueError(
            "gates are drawn of bodies that can be observed, got a body of "
            f"{type(loaded.model.body).__name__} with model {model.model!r}"
        ) from None
    pictures = []
    for layer, found in enumerate(layers, 1):
        path = folder / f"gates-{layer}.png"
        plot_observed({name: values[0, 1:] for name, values in found.items()}, tokens, path)
        pictures.append(path)
    return pictures
