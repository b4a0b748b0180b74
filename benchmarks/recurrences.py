"""Time of every layer beside the LRU, and of nonlinear ones and matrix states beside plain loops.

python -m benchmarks.recurrences [--repetitions 9] [--rows 8] [--steps 1024] [--width 128]

Outputs and all gradients of one layer, all layers taking turns, freed memory kept as in a run. The
width is D and N; `linoss` and `d-linoss` have half as many oscillators, whose states then have as
many real numbers as that of `lru`, and `mamba` and `mamba2` have 2 D channels, as published. The
plain form is the same layer with its scan replaced by that of `lru.scan.reference`, a `lax.scan`
under autodiff: products of inputs are made for all of time at once, as in the layer. The form by
steps is what a user would write, a `lax.scan` over `layer.step` under autodiff: all of the layer at
every step. Medians, and medians of ratios, go to benchmarks/results/recurrences.json.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import jax
from flax import nnx

from benchmarks.layers import compiled, inputs
from benchmarks.provenance import provenance, save
from benchmarks.turns import by_turns
from lru.layers import LAYERS, RecurrentLayer, make_layer
from lru.scan import reference
from lru.training.memory import keep_freed_memory

RESULTS = Path(__file__).parent / "results" / "recurrences.json"

OF_SPEED = {"method", "chunk_length", "compute_dtype", "donate", "limit", "damping"}
"""Options of scans that their plain forms have not."""

PLAIN = ("delta_scan", "gated_scan", "mlstm_scan", "nonlinear_scan", "selective_scan", "ssd_scan")

WIDTHS = {"linoss": 0.5, "d-linoss": 0.5, "mamba": 2, "mamba2": 2}
"""d_hidden of some over that of the others."""


def _loop(name: str, called: list[str]) -> Callable:
    scan = getattr(reference, name)

    def run(*arguments: Any, **options: Any) -> Any:
        called.append(name)
        return scan(*arguments, **{k: v for k, v in options.items() if k not in OF_SPEED})

    return run


@contextmanager
def plain_loops() -> Iterator[list[str]]:
    """Put plain loops in the place of the scans that layers call; names of those called so far."""
    called: list[str] = []
    with ExitStack() as stack:
        for path, module in list(sys.modules.items()):
            for name in PLAIN:
                if path.startswith("lru.layers.") and hasattr(module, name):
                    stack.enter_context(patch.object(module, name, _loop(name, called)))
        yield called


def make(name: str, width: int) -> RecurrentLayer:
    """A layer between features of a width."""
    hidden = round(WIDTHS.get(name, 1) * width)
    return make_layer(name, width, hidden, {}, rngs=nnx.Rngs(0))


class BySteps(nnx.Module):
    """A layer as a `lax.scan` over its steps."""

    def __init__(self, layer: RecurrentLayer):
        self.layer = layer

    def __call__(self, x: jax.Array) -> tuple[jax.Array, Any]:
        """Run the layer from its initial state."""

        def step(state: Any, x_t: jax.Array) -> tuple[Any, jax.Array]:
            y_t, state = self.layer.step(x_t, state)
            return state, y_t

        state = self.layer.initial_state(x.shape[0])
        state, y = jax.lax.scan(step, state, x.swapaxes(0, 1))
        return y.swapaxes(0, 1), state


def state_size(layer: RecurrentLayer) -> int:
    """Real numbers of a state."""
    leaves = jax.tree.leaves(jax.eval_shape(lambda: layer.initial_state(1)))
    return sum(leaf.size * (2 if leaf.dtype.kind == "c" else 1) for leaf in leaves)


def main() -> None:
    """Print and write the figures."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--steps", type=int, default=1024)
    parser.add_argument("--width", type=int, default=128)
    options = parser.parse_args()
    keep_freed_memory()
    x, g = inputs(options.rows, options.steps, options.width)
    programs, memory = {}, {}
    for name in LAYERS:
        programs[name], memory[name] = compiled(make(name, options.width), x, g)
    for name in LAYERS:
        layer = make(name, options.width)
        with plain_loops() as called:
            jax.eval_shape(layer, x)
            if not called:
                continue
            programs[f"{name}, plain"], _ = compiled(layer, x, g)
        programs[f"{name}, by steps"], _ = compiled(BySteps(layer), x, g)
    times = by_turns(programs, options.repetitions)

    def over(name: str, other: str) -> float | None:
        if name not in times:
            return None
        ratios = [a / b for a, b in zip(times[name], times[other], strict=True)]
        return round(statistics.median(ratios), 2)

    rows: list[dict[str, Any]] = []
    for name in LAYERS:
        rows.append(
            {
                "layer": name,
                "ms": round(statistics.median(times[name]), 1),
                "over_lru": over(name, "lru"),
                "plain_over_this": over(f"{name}, plain", name),
                "by_steps_over_this": over(f"{name}, by steps", name),
                "state": state_size(make(name, options.width)),
                "temporary_bytes": memory[name],
            }
        )
        print(*(f"{key} {value}" for key, value in rows[-1].items()))
    save(RESULTS, {"provenance": provenance(), "sizes": vars(options), "layers": rows})


if __name__ == "__main__":
    main()
