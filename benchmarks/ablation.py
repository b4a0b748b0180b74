"""Gain by one loop in C++ for a whole diagonal layer, and by lanes that share their inputs.

python -m benchmarks.ablation [--repetitions 9]

A training step with products and scan in one loop (`lru.scan.projected`) and the same step with the
three one after the other, by turns; and gradients of 8 LRUs under `jax.vmap` beside 8 calls. Freed
memory is kept, as in a run. Medians of the ratios go to benchmarks/results/ablation.json.
"""

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks.provenance import provenance, save
from benchmarks.train_step import make_batch, make_step
from benchmarks.turns import by_turns
from lru.layers import LRU
from lru.scan import projected
from lru.training.memory import keep_freed_memory

RESULTS = Path(__file__).parent / "results" / "ablation.json"


class Size(NamedTuple):
    """What `benchmarks.train_step` builds a model and a batch from."""

    model: str
    batch_size: int
    steps: int
    d_model: int
    d_hidden: int
    n_layers: int


SIZES = [
    Size("lru", 50, 200, 64, 64, 4),
    Size("lru", 32, 256, 64, 64, 4),
    Size("lru", 16, 512, 128, 128, 4),
    Size("lru", 8, 1024, 256, 192, 4),
    Size("diag-rnn", 8, 1024, 256, 192, 4),
    Size("lru", 4, 1024, 512, 384, 2),
]


SELECT = projected.select


def apart(_: str, *arguments: Any, **options: Any) -> str:
    """The method of the scan alone, for products and scan one after the other."""
    return SELECT("linear", *arguments, **options)


def step_of(size: Size, *, fused: bool) -> Callable[[], Any]:
    """A call of a training step, from where the one before ended."""
    sizes = argparse.Namespace(**size._asdict())
    projected.select = SELECT if fused else apart
    try:
        step, state = make_step(size.model, sizes)
        batch = make_batch(sizes)
        compiled = step.lower(state, batch).compile()
    finally:
        projected.select = SELECT

    def call() -> Any:
        nonlocal state
        state = jax.block_until_ready(compiled(state, batch))

    return call


def lanes() -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Gradients of 8 layers by as many calls, and by one under `jax.vmap`."""
    split = [nnx.split(LRU(64, 64, rngs=nnx.Rngs(seed))) for seed in range(8)]
    graphdef, params = split[0][0], [state for _, state in split]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
    x = jax.random.normal(jax.random.key(0), (32, 256, 64))

    def gradient(params: Any, x: jax.Array) -> Any:
        return jax.grad(lambda params: jnp.sum(nnx.merge(graphdef, params)(x)[0] ** 2))(params)

    one, joined = jax.jit(gradient), jax.jit(jax.vmap(gradient, (0, None)))
    return (
        lambda: jax.block_until_ready([one(each, x) for each in params]),
        lambda: jax.block_until_ready(joined(stacked, x)),
    )


def compare(pair: tuple[Callable, Callable], repetitions: int) -> dict[str, Any]:
    """Medians of both in ms, and of the ratios of the second to the first."""
    first, second = by_turns(
        dict(zip(("first", "second"), pair, strict=True)), repetitions
    ).values()
    ratios = [b / a for a, b in zip(first, second, strict=True)]
    return {
        "ms": [round(statistics.median(times), 1) for times in (first, second)],
        "ratio": round(statistics.median(ratios), 2),
        "range": [round(min(ratios), 2), round(max(ratios), 2)],
    }


def main() -> None:
    """Print and write the figures."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--repetitions", type=int, default=9)
    repetitions = parser.parse_args().repetitions
    keep_freed_memory()
    steps = []
    for size in SIZES:
        pair = step_of(size, fused=True), step_of(size, fused=False)
        steps.append({**size._asdict(), **compare(pair, repetitions)})
        print(steps[-1])
    joined = compare(lanes(), repetitions)
    print("8 calls, 8 lanes:", joined)
    save(RESULTS, {"provenance": provenance(), "apart_over_fused": steps, "lanes": joined})


if __name__ == "__main__":
    main()
