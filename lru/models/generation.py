"""Text from a model, one token after the other: read a prompt, then draw and read in turn."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from lru.layers.base import State
from lru.models.sampling import Sampler

Step = Callable[[Int[Array, " B"], State], tuple[Float[Array, "B V"], State]]


def generate(
    step: Step,
    state: State,
    prompt: Int[np.ndarray, "B T"],
    sampler: Sampler,
    key: Key[Array, ""],
) -> Iterator[Int[np.ndarray, " B"]]:
    """Continue prompts without end.

    Args:
        step: takes in one token a row; the logits of the next one, and the state; best compiled.
        state: before the prompt, of B rows; whatever the model carries: states, windows, caches.
        prompt: tokens to begin with, at least one a row.
        sampler: the rule of the draws.
        key: source of the draws; the one at a place of the text depends on key and place alone.

    Returns:
        The next token of each row, again and again.

    Raises:
        ValueError: if the prompt is empty.
    """
    if prompt.shape[1] == 0:
        raise ValueError(f"prompt must have at least one token a row, got shape {prompt.shape}")

    def draws() -> Iterator[Int[np.ndarray, " B"]]:
        tokens, carried = jnp.asarray(prompt[:, 0], jnp.int32), state
        for place in itertools.count(1):
            logits, carried = step(tokens, carried)
            if place < prompt.shape[1]:
                tokens = jnp.asarray(prompt[:, place], jnp.int32)
            else:
                tokens = _draw(sampler, key, logits, jnp.int32(place))
                yield np.asarray(tokens)

    return draws()


@partial(jax.jit, static_argnums=0)
def _draw(
    sampler: Sampler, key: Key[Array, ""], logits: Float[Array, "B V"], place: Int[Array, ""]
) -> Int[Array, " B"]:
    """The tokens at a place of the text, compiled once for all texts of a rule."""
    return sampler(jax.random.fold_in(key, place), logits)


def encode_prompt(tokens: Sequence[str], ids: Mapping[str, int]) -> Int[np.ndarray, " T"]:
    """The ids of tokens.

    Raises:
        ValueError: naming those that have none.
    """
    unknown = [token for token in dict.fromkeys(tokens) if token not in ids]
    if unknown:
        raise ValueError(
            f"prompt must have none but the {len(ids):,} tokens of the vocabulary, got "
            f"{', '.join(map(repr, unknown))}"
        )
    return np.array([ids[token] for token in tokens], np.int32)
