"""Updates a second of small networks that repeat: several in a call, and seeds as lanes.

python -m benchmarks.calls [--rounds 3]

Each way of training is a whole run of `lru train` without its compilation and its evaluation, of
the same number of updates; the ways take turns, round after round, and medians are of the rounds.
What is compared is updates of all seeds a second. Results go to benchmarks/results/calls.json.
"""

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.provenance import provenance, save
from lru.config import Config
from lru.experiment import open_experiment
from lru.origins import load_recipe

RESULTS = Path(__file__).parent / "results" / "calls.json"

WORKLOADS: dict[str, tuple[str, int, int]] = {
    "30 symbols, length 9, N 64, B 256": ("repeat-gru", 256, 400),
    "10 symbols, length 4, N 32, B 256": ("repeat-smoke", 256, 1500),
    "10 symbols, length 4, N 32, B 32": ("repeat-smoke", 32, 3000),
}
"""Recipe, rows of a batch and updates."""

WAYS: dict[str, dict[str, Any]] = {
    "one update a call, one seed": {"on_device": False},
    "data on the device": {"on_device": True},
    "100 updates a call": {"steps_per_call": 100},
    "100 updates a call, 5 seeds": {"steps_per_call": 100, "n_seeds": 5},
    "100 updates a call, 10 seeds": {"steps_per_call": 100, "n_seeds": 10},
}


def rate(workload: str, way: str, cache: str) -> float:
    """Updates of all seeds a second."""
    recipe, rows, updates = WORKLOADS[workload]
    values = {**load_recipe(recipe)["config"], "n_seeds": 1, **WAYS[way]}
    values |= {"batch_size": rows, "max_steps": updates, "eval_every": updates, "log_every": 100}
    with tempfile.TemporaryDirectory() as folder:
        run = {"runs_dir": folder, "dir_name": cache, "checkpoint_every": updates}
        with open_experiment(Config.from_flat({**values, **run, "plots": False})) as experiment:
            return experiment.fit().timing["examples_per_second"] / rows


def main() -> None:
    """Measure, and print the ratios."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir_name", default="cache_dir", help="folder of the prepared data")
    given = parser.parse_args()
    found: dict[str, Any] = {}
    for workload in WORKLOADS:
        rounds = [
            {way: rate(workload, way, given.dir_name) for way in WAYS} for _ in range(given.rounds)
        ]
        medians = {way: statistics.median(each[way] for each in rounds) for way in WAYS}
        first = medians[next(iter(WAYS))]
        found[workload] = {
            way: {"updates_per_second": round(value, 1), "ratio": round(value / first, 2)}
            for way, value in medians.items()
        }
        print(workload, found[workload], flush=True)
    save(RESULTS, {**provenance(), "rounds": given.rounds, "workloads": found})


if __name__ == "__main__":
    main()
