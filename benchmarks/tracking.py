"""Cost of tracking and checkpoints at their defaults, beside the same training without any.

python -m benchmarks.tracking [--pairs 5] [--recipe quickstart] [--n_train 40000]

Two runs train in one process and take turns, an epoch each: one logs, saves, draws and records as
`lru train` does, the other does none of it. A turn is the updates and the evaluation after them,
until all that goes on in the background is done. The first turns compile and are left out. Seconds,
the ratio of each pair and their median go to benchmarks/results/tracking.json.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from threading import Event, Thread
from typing import Any

from benchmarks.provenance import provenance, save
from lru.config import Config
from lru.experiment import open_experiment
from lru.origins import load_recipe
from lru.training.hooks import Hook
from lru.training.memory import keep_freed_memory
from lru.training.runs import open_trackers
from lru.training.trackers import Trackers

RESULTS = Path(__file__).parent / "results" / "tracking.json"


class Turns(Hook):
    """Lets the other run go on after each evaluation; the last of the hooks.

    Attributes:
        begins: set when the run may go on.
        ended: set while it waits, and at its end.
        seconds: of each turn.
        trackers: of the run.
    """

    name = "turns"

    def __init__(self) -> None:
        self.begins, self.ended = Event(), Event()
        self.seconds: list[float] = []
        self.trackers = Trackers()
        self._start = 0.0

    def begin(self) -> None:
        """Wait for the turn."""
        self.ended.set()
        self.begins.wait()
        self.begins.clear()
        self._start = time.perf_counter()

    def after_evaluation(self, run: Any, reports: Sequence[Any]) -> None:
        """Wait for what goes on in the background, note the time, and wait for the next turn."""
        run.wait()
        for tracker in self.trackers._others:
            idle = Event()
            tracker.tell(lambda _, idle=idle: idle.set())
            idle.wait()
        self.seconds.append(time.perf_counter() - self._start)
        if run.finished:
            self.ended.set()
        else:
            self.begin()


def train(values: dict[str, Any], turns: Turns, *, tracked: bool) -> None:
    """Train a run, each epoch when its turn has come."""
    config = Config.from_flat({**values, "name": "tracked" if tracked else "plain"})
    with open_experiment(config) as experiment:
        trainer = experiment.trainer
        if not tracked:
            own = ("log", "show", "save")
            trainer.hooks = [hook for hook in trainer.hooks if hook.name not in own]
            trainer.save_best = lambda better: None
        trainer.hooks.append(turns)
        opened = open_trackers(experiment.run, config.run, 0, config.flat())
        turns.begin()
        with opened if tracked else nullcontext(Trackers()) as turns.trackers:
            trainer.fit(turns.trackers)


def main() -> None:
    """Measure, print and write the ratios."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--recipe", default="quickstart")
    parser.add_argument("--n_train", type=int, help="fewer rows, to try it out")
    parser.add_argument("--dir_name", default="cache_dir", help="folder of the prepared data")
    given = parser.parse_args()
    keep_freed_memory()
    values = {**load_recipe(given.recipe)["config"], "epochs": given.pairs + 1}
    if given.n_train:
        values["data_options"] = {**values["data_options"], "n_train": given.n_train}
    runs = {True: Turns(), False: Turns()}
    with tempfile.TemporaryDirectory() as folder:
        values |= {"runs_dir": folder, "dir_name": given.dir_name}
        threads = [
            Thread(target=train, args=(values, turns), kwargs={"tracked": tracked}, daemon=True)
            for tracked, turns in runs.items()
        ]
        for thread, turns in zip(threads, runs.values(), strict=True):
            thread.start()
            turns.ended.wait()
        for pair in range(given.pairs + 1):
            # Who goes first has no advantage.
            for tracked in sorted(runs, reverse=pair % 2 == 0):
                runs[tracked].ended.clear()
                runs[tracked].begins.set()
                runs[tracked].ended.wait()
        for thread in threads:
            thread.join()
    seconds = {
        name: [round(x, 3) for x in runs[tracked].seconds[1:]]
        for name, tracked in (("tracked", True), ("plain", False))
    }
    ratios = [round(a / b, 4) for a, b in zip(seconds["tracked"], seconds["plain"], strict=True)]
    results = {"seconds": seconds, "ratios": ratios, "median": statistics.median(ratios)}
    print(results)
    save(RESULTS, {"provenance": provenance(), "settings": vars(given), **results})


if __name__ == "__main__":
    main()
