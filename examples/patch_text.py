"""Which layer's state does a language model need, and for how long does a wrong one do harm?

lru train --name play --dataset shakespeare-lm --model gru --body blocks --norm layer \
    --n_layers 2 --d_model 128 --d_hidden 128 --p_dropout 0 --batch_size 32 --bptt 100 \
    --lr_base 0.01 --lr_factor 1 --warmup_end 0 --weight_decay 0 --clip_norm 1 --epochs 1
python examples/patch_text.py play

In the middle of a passage layers take over the states that another passage has left. Printed are
the bits a token that this costs, by how far behind the middle the token stands.
"""

import argparse
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import lru
from lru.analysis import patch, recurrent_layers


def costs(run: str, steps: int, rows: int) -> tuple[list[range], dict[str, list[float]]]:
    """Ranges of distances from the middle, and what patches cost in each, by layer.

    Args:
        run: a language model: its name or its folder.
        steps: of a passage of the test text, at least 4.
        rows: number of passages, at most.

    Raises:
        ValueError: if the text has no two such passages.
    """
    trained = lru.load_model(run)
    model, text = trained.model, trained.data.test.values  # pyright: ignore
    rows = min(rows, (len(text) - 1) // steps)
    if steps < 4 or rows < 2:
        raise ValueError(f"steps must be at least 4 and leave two passages, got {steps}")
    tokens, following = (
        jnp.asarray(text[i : i + rows * steps].reshape(rows, steps), jnp.int32) for i in (0, 1)
    )
    middle = steps // 2
    own = information(model, tokens, following, middle, layers=())
    layers = range(len(recurrent_layers(model)))
    cases = {f"layer {layer}": (layer,) for layer in layers} | {"all layers": None}
    more = {
        name: np.asarray(information(model, tokens, following, middle, chosen) - own)
        for name, chosen in cases.items()
    }
    bounds = [0, *(2 ** np.arange(1, 30, 2)), steps]
    ends = [bound for bound in bounds if bound < steps - middle] + [steps - middle]
    ranges = [range(a, b) for a, b in itertools.pairwise(ends)]
    return ranges, {
        name: [float(bits[middle + r.start : middle + r.stop].mean()) for r in ranges]
        for name, bits in more.items()
    }


@nnx.jit(static_argnames=("at", "layers"))
def information(
    model: Any,
    tokens: jax.Array,
    following: jax.Array,
    at: int,
    layers: Sequence[int] | None,
) -> jax.Array:
    """Mean bits of the following token at every step, with states taken over from the next row."""
    _, left = model(jnp.roll(tokens[:, :at], 1, axis=0))
    log_probabilities, _ = patch(model, tokens, at, left, layers)
    chosen = jnp.take_along_axis(log_probabilities, following[..., None], axis=-1)[..., 0]
    return -chosen.mean(axis=0) / jnp.log(2)


def main(words: Sequence[str] | None = None) -> None:
    """Print the costs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", help="a language model")
    parser.add_argument("--steps", type=int, default=200, help="tokens of a passage")
    parser.add_argument("--rows", type=int, default=200, help="number of passages, at most")
    arguments = parser.parse_args(words)
    ranges, found = costs(arguments.run, arguments.steps, arguments.rows)
    names = [f"{r.start + 1} to {r.stop}" for r in ranges]
    print("bits a token more, by steps behind the middle")
    print(" " * 12 + "".join(f"{name:>12}" for name in names))
    for name, bits in found.items():
        print(f"{name:12}" + "".join(f"{value:12.3f}" for value in bits))


if __name__ == "__main__":
    main()
