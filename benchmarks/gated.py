"""The loops of an LSTM and a GRU in C++ beside those that XLA compiles, forward and backward.

python -m benchmarks.gated [--repetitions 51]

Programs take turns; a time is that of one call, the median of the repetitions.
"""

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.provenance import provenance, save
from benchmarks.turns import by_turns
from lru.layers import GRU, LSTM
from lru.scan import GatedCell, gated_scan, select

RESULTS = Path(__file__).parent / "results" / "gated.json"
LAYERS = {"lstm": LSTM, "gru": GRU}
# N, B and T.
SIZES = [
    *((16, 8, 20), (32, 32, 40), (128, 32, 64), (256, 1, 64), (256, 32, 64), (320, 8, 512)),
    *((512, 4, 64), (512, 16, 64), (640, 20, 105), (1024, 1, 64), (1024, 16, 64)),
]


def problem(layer: type[LSTM | GRU], width: int, rows: int, steps: int) -> tuple:
    """Inputs, matrix and state, drawn."""
    keys = jax.random.split(jax.random.key(0), 3)
    columns = layer.n_gates * width
    x = jax.random.normal(keys[0], (rows, steps, columns + layer.apart * width))
    W = jax.random.normal(keys[1], (width, columns)) / width**0.5
    state = tuple(jax.random.normal(keys[2], (rows, width)) for _ in layer.state_type._fields)
    return x, W, state


def gradients(cell: GatedCell, x: jax.Array, W: jax.Array, state: tuple) -> tuple:
    """Of the sum of squares of all outputs."""

    def loss(x: jax.Array, W: jax.Array, state: tuple) -> jax.Array:
        return jnp.sum(gated_scan(cell, x, W, state)[0] ** 2)

    return jax.grad(loss, (0, 1, 2))(x, W, state)


def run(program: Callable, *arguments: Any) -> None:
    """Call it and wait."""
    jax.block_until_ready(program(*arguments))


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repetitions", type=int, default=51)
    options = parser.parse_args()
    # Both loops at all sizes.
    select.LARGEST_MATRIX = select.LARGEST_MATRIX_OF_MANY_ROWS
    rows = []
    for name, layer in LAYERS.items():
        for size in SIZES:
            arguments = problem(layer, *size)
            programs = {}
            for kind, cell in (("native", layer.cell), ("xla", layer.cell._replace(native=""))):
                compiled = jax.jit(partial(gradients, cell)).lower(*arguments).compile()
                programs[kind] = partial(run, compiled, *arguments)
            turns = by_turns(programs, options.repetitions)
            times = {kind: statistics.median(values) for kind, values in turns.items()}
            rows.append(
                {"cell": name, **dict(zip("NBT", size, strict=True)), "ms": times}
                | {"times_as_fast": times["xla"] / times["native"]}
            )
            print(rows[-1], flush=True)
    save(RESULTS, {"provenance": provenance(), "rows": rows})


if __name__ == "__main__":
    main()
