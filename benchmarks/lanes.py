"""Seeds trained side by side, beside one after the other: examples a second, as a user trains them.

python -m benchmarks.lanes [--updates 300] [--repetitions 5] [--only lstm]

Every entrant is a call of `lru.fit` on data in memory; compilation, evaluation and checkpoints are
not counted. Entrants take turns; ratios are of medians.
"""

import argparse
import math
import statistics
import tempfile
from pathlib import Path

import numpy as np

import lru
from benchmarks.provenance import provenance, save
from lru.dataloaders import Prepared, from_arrays
from lru.training import lanes

RESULTS = Path(__file__).parent / "results" / "lanes.json"
ROWS, SEEDS = 32, 8
# Width and number of steps, by model.
SIZES = {"lstm": (32, 40), "gru": (32, 40), "lru": (64, 256), "qrnn": (64, 256)}
# Greatest work of a lane that is joined, which decides between the two ways.
METHODS = {"vmap": math.inf, "map": 0.0}


def data_of(steps: int) -> Prepared:
    """Random tokens with random classes."""
    rng = np.random.default_rng(0)
    rows = rng.integers(1, 20, (20 * ROWS, steps))
    held_out = (rows[:ROWS], rng.integers(2, size=ROWS))
    train = (rows, rng.integers(2, size=len(rows)))
    return from_arrays("random", train, held_out, held_out, vocabulary=list(map(str, range(20))))


def examples_per_second(
    data: Prepared, model: str, width: int, seeds: int, method: str, updates: int
) -> float:
    """Speed of a training, over all seeds."""
    lanes.LARGEST_JOINED = METHODS[method]
    with tempfile.TemporaryDirectory() as runs:
        _, summary = lru.fit(
            data,
            model=model,
            n_layers=1,
            d_model=width,
            d_hidden=width,
            norm="layer",
            batch_size=ROWS,
            epochs=math.ceil(updates / 20),
            n_seeds=seeds,
            runs_dir=runs,
        )
    return summary.timing["examples_per_second"]


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--updates", type=int, default=300)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=SIZES, default=list(SIZES))
    options = parser.parse_args()
    rows = []
    for model in options.only:
        width, steps = SIZES[model]
        data = data_of(steps)
        entrants = {"single": (1, "vmap"), "vmap": (SEEDS, "vmap"), "map": (SEEDS, "map")}
        speeds: dict[str, list[float]] = {name: [] for name in entrants}
        for _ in range(options.repetitions):
            for name, (seeds, method) in entrants.items():
                speed = examples_per_second(data, model, width, seeds, method, options.updates)
                speeds[name].append(speed)
        medians = {name: statistics.median(values) for name, values in speeds.items()}
        ratios = {name: medians[name] / medians["single"] for name in METHODS}
        rows.append(
            {
                "model": model,
                "d_model": width,
                "d_hidden": width,
                "batch_size": ROWS,
                "steps": steps,
                "seeds": SEEDS,
                "examples_per_second": speeds,
                "times_one_after_the_other": ratios,
            }
        )
        print(model, {name: f"{ratio:.2f}x" for name, ratio in ratios.items()}, flush=True)
    save(RESULTS, {"provenance": provenance(), "rows": rows})


if __name__ == "__main__":
    main()
