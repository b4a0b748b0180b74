"""Time of QRNN, LSTM and GRU layers beside `torch.nn.LSTM` and `GRU`.

python -m benchmarks.qrnn train [--repetitions 9] [--give_memory_back]
python -m benchmarks.qrnn inference | training [--repetitions 3] [--batches 8 16 ...]
python -m benchmarks.qrnn plot

"train" is a forward and a backward pass, to the gradients of all parameters, in two sizes of the
literature: 2 layers of 640 units (batch 20, 105 steps) and 1 of 320 (batch 8, 512 steps).
"inference" (forward) and "training" (forward and backward) have the shape of the QRNN paper's
figure 4: one layer of 320 units beside an LSTM, by batch and length. Entrants take turns, of
which the last pass counts, and medians are kept. Freed memory is kept for the next pass, as in a
training run, for both libraries alike, unless it is to be given back. Results go to
benchmarks/results/qrnn.json, and "plot" draws docs/images/qrnn_speed.png from them.
"""

import argparse
import io
import json
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import torch
from flax import nnx
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.provenance import provenance
from lru.files import write_atomically
from lru.layers import GRUStack, LSTMStack, QRNNStack
from lru.training.memory import keep_freed_memory

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "qrnn.json"
PICTURE = ROOT / "docs" / "images" / "qrnn_speed.png"

# Layers, units, batch, steps.
SIZES = [(2, 640, 20, 105), (1, 320, 8, 512)]
BATCHES = [8, 16, 32, 64, 128, 256]
LENGTHS = [32, 64, 128, 256, 512]
GRID_UNITS = 320
MANY_ROWS = 2**14
# Milliseconds: of passes before the one that is timed, and of a pass that needs none.
WARM_UP = 40
LONG = 500
WINDOWS = ("qrnn, window 1", "qrnn, window 2")

STACKS: dict[str, Callable[..., Any]] = {
    "lstm": LSTMStack,
    "gru": GRUStack,
    "qrnn, window 1": partial(QRNNStack, window=1),
    "qrnn, window 2": partial(QRNNStack, window=2),
}
PEERS = {"torch lstm": torch.nn.LSTM, "torch gru": torch.nn.GRU}

Pass = Callable[[], Any]


def ours(name: str, layers: int, units: int, batch: int, steps: int, train: bool) -> Pass:
    """A pass of a stack of ours."""
    stack = STACKS[name](units, [units] * layers, rngs=nnx.Rngs(0))
    graphdef, params = nnx.split(stack)
    x = jax.random.normal(jax.random.key(0), (batch, steps, units))

    def run(params: nnx.State, x: jax.Array) -> jax.Array:
        return nnx.merge(graphdef, params)(x)[0]

    def total(params: nnx.State, x: jax.Array) -> jax.Array:
        return run(params, x).sum()

    compiled = jax.jit(jax.grad(total) if train else run).lower(params, x).compile()
    return lambda: jax.block_until_ready(compiled(params, x))


def theirs(name: str, layers: int, units: int, batch: int, steps: int, train: bool) -> Pass:
    """A pass of a module of PyTorch."""
    torch.manual_seed(0)
    module = PEERS[name](units, units, layers)
    x = torch.randn(steps, batch, units)

    def train_pass() -> None:
        module.zero_grad(set_to_none=True)
        module(x)[0].sum().backward()

    def inference() -> None:
        with torch.no_grad():
            module(x)

    return train_pass if train else inference


def medians(entrants: dict[str, Pass], repetitions: int) -> dict[str, float]:
    """Milliseconds of each entrant, taking turns."""
    times: dict[str, list[float]] = {name: [] for name in entrants}
    for _ in range(repetitions):
        for name, run in entrants.items():
            if not times[name] or times[name][-1] < LONG:
                warm_up(run)
            times[name].append(milliseconds(run))
    return {name: round(statistics.median(values), 2) for name, values in times.items()}


def warm_up(run: Pass) -> None:
    """Wake this entrant's threads, until those of the one before have stopped spinning."""
    spent = 0.0
    while spent < WARM_UP:
        spent += milliseconds(run)


def milliseconds(run: Pass) -> float:
    """The time of one pass."""
    start = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - start)


def measure_train(repetitions: int) -> list[dict[str, Any]]:
    """All entrants in both sizes."""
    rows = []
    for size in SIZES:
        entrants = {name: theirs(name, *size, train=True) for name in PEERS}
        entrants |= {name: ours(name, *size, train=True) for name in STACKS}
        middle = medians(entrants, repetitions)
        print("layers {}, units {}, batch {}, steps {}".format(*size))
        for name, value in middle.items():
            print(f"{name:20}{value:10.1f} ms{middle['torch lstm'] / value:8.2f} x torch lstm")
        rows.append(
            dict(zip(("layers", "units", "batch", "steps"), size, strict=True)) | {"ms": middle}
        )
    return rows


def measure_grid(train: bool, batches: list[int], repetitions: int) -> list[dict[str, Any]]:
    """One layer beside PyTorch's LSTM, by batch and length."""
    rows = []
    for batch in batches:
        for steps in LENGTHS:
            size = (1, GRID_UNITS, batch, steps)
            entrants = {"torch lstm": theirs("torch lstm", *size, train)}
            entrants |= {name: ours(name, *size, train) for name in WINDOWS}
            # Short passes vary more.
            middle = medians(entrants, repetitions * min(max(MANY_ROWS // (batch * steps), 1), 8))
            rows.append({"batch": batch, "steps": steps, "ms": middle})
            ratios = (f"{middle['torch lstm'] / middle[name]:.2f}" for name in WINDOWS)
            print(f"batch {batch}, steps {steps}: torch lstm / qrnn", *ratios, flush=True)
    return rows


def load() -> dict[str, Any]:
    """The results so far."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def save(name: str, rows: list[dict[str, Any]]) -> None:
    """Put rows among the results, over those of the same size."""

    def size(row: dict[str, Any]) -> tuple:
        return tuple(value for key, value in row.items() if key != "ms")

    results = load()
    kept = results.get(name, {}).get("rows", [])
    all_rows = {size(row): row for row in [*kept, *rows]}
    origin = provenance() | {"torch": torch.__version__}
    results[name] = {"provenance": origin, "rows": [all_rows[key] for key in sorted(all_rows)]}
    RESULTS.parent.mkdir(exist_ok=True)
    write_atomically(RESULTS, (json.dumps(results, indent=1) + "\n").encode())


def draw_times(axes: Axes, rows: list[dict[str, Any]]) -> None:
    """Bars of a forward and a backward pass, relative to PyTorch's LSTM."""
    names = list(rows[0]["ms"])
    for i, row in enumerate(rows):
        shares = [row["ms"][name] / row["ms"]["torch lstm"] for name in names]
        label = "{layers} x {units}, batch {batch}, {steps} steps".format(**row)
        places = [position + 0.4 * i for position in range(len(names))]
        axes.barh(places, shares, 0.38, label=label, color=("#2a6fbb", "#8c9bb0")[i])
        for place, share, name in zip(places, shares, names, strict=True):
            axes.text(share + 0.02, place, f"{row['ms'][name]:.0f} ms", va="center", fontsize=8)
    axes.set_yticks([position + 0.2 for position in range(len(names))], names)
    axes.invert_yaxis()
    axes.margins(x=0.2)
    axes.set(title="forward and backward", xlabel="time relative to torch lstm")
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)


def draw_grid(axes: Axes, rows: list[dict[str, Any]], title: str) -> None:
    """Speed relative to PyTorch's LSTM, in colour and numbers."""
    name = WINDOWS[1]
    speeds = {
        (row["batch"], row["steps"]): row["ms"]["torch lstm"] / row["ms"][name] for row in rows
    }
    table = [[speeds[batch, steps] for steps in LENGTHS] for batch in BATCHES]
    axes.imshow(table, cmap="Blues", vmin=0, vmax=1.3 * max(map(max, table)), aspect="auto")
    for i, line in enumerate(table):
        for j, speed in enumerate(line):
            axes.text(j, i, f"{speed:.1f}x", ha="center", va="center")
    axes.set_xticks(range(len(LENGTHS)), map(str, LENGTHS))
    axes.set_yticks(range(len(BATCHES)), map(str, BATCHES))
    axes.set(title=title, xlabel="steps", ylabel="batch")


def plot() -> None:
    """Draw the results."""
    results = load()
    figure = Figure(figsize=(14, 4), layout="constrained")
    first, second, third = figure.subplots(1, 3)
    draw_times(first, results["train"]["rows"])
    draw_grid(second, results["inference"]["rows"], f"{WINDOWS[1]}: inference")
    draw_grid(third, results["training"]["rows"], f"{WINDOWS[1]}: training")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=130)
    write_atomically(PICTURE, picture.getvalue())


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=("train", "inference", "training", "plot"))
    parser.add_argument("--repetitions", type=int)
    parser.add_argument("--batches", type=int, nargs="+", choices=BATCHES, default=BATCHES)
    parser.add_argument("--give_memory_back", action="store_true")
    args = parser.parse_args()
    if args.what == "plot":
        plot()
        return
    torch.set_num_threads(os.cpu_count() or 1)
    if not args.give_memory_back:
        keep_freed_memory()
    if args.what == "train":
        name = "train, memory given back" if args.give_memory_back else "train"
        save(name, measure_train(args.repetitions or 9))
    else:
        rows = measure_grid(args.what == "training", args.batches, args.repetitions or 3)
        save(args.what, rows)


if __name__ == "__main__":
    main()
