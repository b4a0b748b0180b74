"""Memory of a whole training step in bfloat16 beside float32, from the compiler's own account.

python -m benchmarks.step_memory [--models lru mingru] [--batch_size 32] [--steps 2048]

Programs are compiled, not run: what a step takes beside its arguments is what the compiler set
aside. Models are of the widths of the recipes for ListOps, with 6 blocks; each is compiled as
training does it, also with blocks computed again (`--remat`). Results go to
benchmarks/results/step_memory.json, in MiB.
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.provenance import provenance, save
from benchmarks.train_step import CARD, build_optimizer
from lru.batches import Batch
from lru.models import ModelConfig
from lru.tasks.classification import Classification
from lru.training.progress import Stopwatch
from lru.training.update import CompiledByShape, init_state, make_functions

# Widths D and N of the recipes; of those without one, as diag-rnn.
WIDTHS = {"lru": (128, 256)}
LAYERS = 6


def memory(model: str, sizes: argparse.Namespace, **options: Any) -> int:
    """Bytes that a training step takes beside its arguments."""
    d_model, d_hidden = WIDTHS.get(model, (256, 192))
    widths = {"n_layers": LAYERS, "d_model": d_model, "d_hidden": d_hidden, "p_dropout": 0.0}
    task = Classification(CARD, ModelConfig(model=model, body_options=options, **widths))
    rows = sizes.batch_size
    batch = Batch(
        inputs=jax.ShapeDtypeStruct((rows, sizes.steps), jnp.uint8),
        labels=jax.ShapeDtypeStruct((rows,), jnp.int32),
        weights=jax.ShapeDtypeStruct((rows,), jnp.float32),
        lengths=jax.ShapeDtypeStruct((rows,), jnp.int32),
    )
    graphdef, state = init_state(task, build_optimizer, 0)
    functions = make_functions(task, graphdef, build_optimizer)
    update = CompiledByShape(functions.train, Stopwatch())
    return update.program(state, batch).memory_analysis().temp_size_in_bytes


def main() -> None:
    """Print and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=["diag-rnn", "lru", "rnn", "mingru", "lstm"])
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=2048)
    sizes = parser.parse_args()
    table = {}
    for model in sizes.models:
        wide, narrow, again = (
            memory(model, sizes, **options)
            for options in ({}, {"dtype": "bfloat16"}, {"dtype": "bfloat16", "remat": True})
        )
        table[model] = {
            "float32": round(wide / 2**20),
            "bfloat16": round(narrow / 2**20),
            "bfloat16_remat": round(again / 2**20),
            "ratio": round(narrow / wide, 3),
            "ratio_remat": round(again / wide, 3),
        }
        print(model, *(f"{key} {value}" for key, value in table[model].items()), flush=True)
    results = {"provenance": provenance(), "sizes": vars(sizes), "n_layers": LAYERS, "MiB": table}
    save(Path(__file__).parent / "results" / "step_memory.json", results)


if __name__ == "__main__":
    main()
