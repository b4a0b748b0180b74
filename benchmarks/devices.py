"""Time of an update on host devices that share the cores, beside one device that uses them all.

python -m benchmarks.devices [--devices 2] [--repetitions 15]

The devices split the rows of the batch (`--mesh data=N`). Both ways take turns in one process, with
memory kept as in a run; the medians and the median ratio of a pair go to
benchmarks/results/devices.json.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax

from benchmarks.provenance import provenance, save
from benchmarks.train_step import CARD, add_sizes, build_optimizer, make_batch
from lru.devices import DATA, Devices
from lru.models import ModelConfig
from lru.tasks.classification import Classification
from lru.training.memory import keep_freed_memory
from lru.training.progress import Stopwatch
from lru.training.update import CompiledByShape, init_state, make_functions, rows_of

RESULTS = Path(__file__).parent / "results" / "devices.json"
MODELS = ("lru", "qrnn", "lstm")


def updates(model: str, devices: Devices, sizes: argparse.Namespace) -> Callable[[], float]:
    """A function that makes an update and returns its seconds, after two that do not count."""
    config = ModelConfig(
        model=model, n_layers=sizes.n_layers, d_model=sizes.d_model, d_hidden=sizes.d_hidden
    )
    task = Classification(CARD, config)
    graphdef, state = init_state(task, build_optimizer, 0)
    functions = make_functions(task, graphdef, build_optimizer, axis=devices.axis)
    update = CompiledByShape(devices.on_each(functions.train, rows_of), Stopwatch())
    batch = devices.send(make_batch(sizes), rows_of)
    state = devices.put(state, rows_of)

    def timed() -> float:
        nonlocal state
        start = time.perf_counter()
        state = jax.block_until_ready(update(state, batch))
        return time.perf_counter() - start

    for _ in range(2):
        timed()
    return timed


def compared(model: str, sizes: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds of both ways, in turns."""
    make = partial(updates, model, sizes=sizes)
    one, several = make(Devices()), make(Devices.named(f"{DATA}={sizes.devices}"))
    pairs = [(one(), several()) for _ in range(sizes.repetitions)]
    return {
        "one device, ms": round(1000 * statistics.median(alone for alone, _ in pairs), 1),
        "several devices, ms": round(1000 * statistics.median(each for _, each in pairs), 1),
        "ratio": round(statistics.median(each / alone for alone, each in pairs), 3),
    }


def main() -> None:
    """Measure, and print the times."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    add_sizes(parser)
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=15)
    sizes = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", sizes.devices)
    keep_freed_memory()
    found = {}
    for model in MODELS:
        found[model] = compared(model, sizes)
        print(model, found[model], flush=True)
    save(RESULTS, {**provenance(), "sizes": vars(sizes), "models": found})


if __name__ == "__main__":
    main()
