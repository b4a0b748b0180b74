"""Which layer's state decides the verdict on a review whose first half is swapped in its memory?

lru train --name reviews --dataset imdb-word-classification --data_options max_length=100 \
    --model gru --n_layers 2 --d_model 32 --d_hidden 32 --pooling last --p_dropout 0.1 \
    --batch_size 32 --lr_base 0.01 --lr_factor 1 --warmup_end 0 --epochs 1
python examples/patch_review.py reviews

Reviews are read up to their middle. There layers take over the states that another review has left,
one on which the verdict is another, and read the second half. Any run of a classifier will do.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import lru
from lru.analysis import patch, recurrent_layers


def verdicts(run: str, steps: int, rows: int) -> dict[str, float]:
    """Shares of reviews that get the other's verdict, by what they take over.

    Args:
        run: a classifier of sequences, without `--bidirectional`: its name or its folder.
        steps: of the reviews; shorter ones are left out, and longer ones cut.
        rows: number of reviews to look at, at most.

    Raises:
        ValueError: if there are no two such reviews with different verdicts.
    """
    trained = lru.load_model(run)
    model, task, test = trained.model, trained.task, trained.data.test
    long = np.flatnonzero(test.lengths >= steps)[:rows]
    refusal = ValueError(f"steps must leave two rows with different verdicts, got {steps}")
    if len(long) < 2:
        raise refusal
    padded = test.padded(long, test.lengths[long].max())[:, :steps]
    mine = task.prepare(jnp.asarray(padded))
    own = read(model, mine)[0].argmax(axis=-1)
    # Rows by verdict, each beside the one half of them away.
    order = np.argsort(own, kind="stable")
    theirs = np.roll(order, len(order) // 2)[np.argsort(order)]
    pairs = np.flatnonzero(own != own[theirs])
    if not len(pairs):
        raise refusal
    mine, theirs, wanted = mine[pairs], mine[theirs[pairs]], own[theirs[pairs]]
    left = read(model, theirs[:, : steps // 2])[1]
    layers = range(len(recurrent_layers(model)))
    cases: dict[str, dict[str, Any]] = {f"layer {layer}": {"layers": (layer,)} for layer in layers}
    cases["all layers"] = {}
    if getattr(left, "pooled", None) is not None:
        cases["all layers and what was pooled"] = {"pooled": True}
    return {
        name: float(np.mean(patched(model, mine, steps // 2, left, **case).argmax(-1) == wanted))
        for name, case in cases.items()
    }


@nnx.jit
def read(model: nnx.Module, inputs: jax.Array) -> Any:
    """Scores and state."""
    return model(inputs)  # pyright: ignore[reportCallIssue]


@nnx.jit(static_argnames=("at", "layers", "pooled"))
def patched(
    model: nnx.Module,
    inputs: jax.Array,
    at: int,
    other: Any,
    layers: Sequence[int] | None = None,
    pooled: bool = False,
) -> jax.Array:
    """Scores."""
    return patch(model, inputs, at, other, layers, pooled=pooled)[0]


def main(words: Sequence[str] | None = None) -> None:
    """Print the shares."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", help="a classifier of sequences")
    parser.add_argument("--steps", type=int, default=100, help="steps of the rows to look at")
    parser.add_argument("--rows", type=int, default=2000, help="number of rows, at most")
    arguments = parser.parse_args(words)
    print("verdicts that follow the state taken over at the middle")
    for name, share in verdicts(arguments.run, arguments.steps, arguments.rows).items():
        print(f"{share:6.1%}  {name}")


if __name__ == "__main__":
    main()
