"""The scans on this device: whether they are right, how long they take, and what training gains.

python -m benchmarks.accelerator [--minutes 8] [--tiny] [--out FILE]

Needs this checkout, JAX, Flax, jaxtyping and NumPy alone; PyTorch is compared where it is there.
The law: values and gradients against a loop in float64, at which arrays may be bfloat16, and dense
scans at the default and the highest precision of products. Scans, on arrays that live on: the
methods beside autodiff through `jax.lax.associative_scan` and `jax.lax.scan`, N 768, T 1,024 to
65,536. Their times are given as shares too, of what a copy of the same bytes would take at the rate
of this device: forward a scan reads b (and a varying a) and writes h; its gradient reads h and the
gradient of h (and a), and writes that of b (and of a). Training, a step of plain descent: the LRU
published for sequential CIFAR (6 blocks of norm, layer and gated linear unit, D 512, N 384, B 50,
T 1,024) beside itself in complex form and PyTorch's LSTM; a QRNN of 2 layers of 640 units (B 20,
T 105) beside LSTMs.

What tells most comes first. Results are written after every case, to FILE or, unless --tiny asks
for sizes that a CPU can try, to benchmarks/results/accelerator-DEVICE.json, and printed as a table.
A case that fails is kept with its error. After the minutes the program ends, whatever runs then.
"""

import argparse
import os
import re
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from benchmarks.plain import PlainLRU, associative_scan
from benchmarks.provenance import provenance, save
from benchmarks.turns import by_turns
from lru.layers import LRU, LSTMStack, QRNNStack
from lru.scan import DENSE_METHODS, LINEAR_METHODS, dense_scan, linear_scan, paired_scan
from lru.scan.select import select

RESULTS = Path(__file__).parent / "results"
Row = dict[str, Any]
Case = tuple[Row, Callable[[], Row]]

# Seconds: of compilation, after which a program is not run; of all repetitions of one.
LONGEST_COMPILATION, REPEATED = 90, 1
# Relative errors: of float32 over some hundred steps; of a gradient rounded to bfloat16.
ALLOWED = {"float32": 1e-4, "bfloat16": 4e-3}


def methods() -> list[str]:
    """Methods of elementwise scans for one device of this kind, the slow one last."""
    elsewhere = {"cpu": {"mosaic"}, "gpu": {"native"}}.get(
        jax.default_backend(), {"mosaic", "native"}
    )
    known = LINEAR_METHODS.keys() - elsewhere - {"sharded"}
    return sorted(known, key=lambda name: (name == "sequential", name))


def measured(**programs: tuple[Callable, tuple]) -> Row:
    """Milliseconds, seconds of compilation and temporary bytes of functions of arrays."""
    row: Row = {}
    for name, (function, arrays) in programs.items():
        start = time.perf_counter()
        program = jax.jit(function).lower(*arrays).compile()
        seconds = time.perf_counter() - start
        if seconds > LONGEST_COMPILATION:
            raise TimeoutError(f"{name} took {seconds:.0f} s to compile")
        analysis: Any = program.memory_analysis()
        row[f"{name}_ms"] = repeated(partial(_finished, program, *arrays))
        row[f"{name}_compile_s"] = round(seconds, 1)
        row[f"{name}_temporary_bytes"] = analysis.temp_size_in_bytes
    return row


def _finished(program: Callable, *arrays: Any) -> Any:
    return jax.block_until_ready(program(*arrays))


def repeated(program: Callable[[], Any]) -> float:
    """Median milliseconds of a program, after two runs that do not count."""
    program()
    start = time.perf_counter()
    program()
    repetitions = int(REPEATED / (time.perf_counter() - start))
    times = by_turns({"": program}, min(max(repetitions, 1), 15))
    return round(statistics.median(times[""]), 4)


def copy_rate(tiny: bool) -> float:
    """Bytes a second that a copy reads and writes, in GB."""
    x = jnp.ones(2**20 if tiny else 2**28)
    copied = measured(copy=(lambda x: x * 1.0001, (x,)))
    return 2 * x.nbytes / copied["copy_ms"] / 1e6


# The law.


def oracle(a: Any, b: Any, h0: Any, g: Any) -> tuple:
    """States, and the gradients of a, b and h0 given that of h, in float64.

    Of complex arrays it is the gradient in the sense of JAX. A factor [N, N] is a matrix.
    """
    matrix, varying, h = a.ndim == 2, a.ndim == 3, [h0]
    for t in range(b.shape[1]):
        factor = a[:, t] if varying else a
        h.append((h[-1] @ factor.T if matrix else factor * h[-1]) + b[:, t])
    through, da, db = np.zeros_like(h0), [], []
    for t in reversed(range(b.shape[1])):
        factor = a[:, t] if varying else a
        db.append(g[:, t] + through)
        da.append(db[-1].T @ h[t] if matrix else db[-1] * h[t])
        through = db[-1] @ factor if matrix else factor * db[-1]
    of_a = np.stack(da[::-1], 1) if varying else np.sum(da, 0) if matrix else np.sum(da, (0, 1))
    return np.stack(h[1:], 1), of_a, np.stack(db[::-1], 1), through


def law(scan: Callable, numbers: str, a_is: str, dtype: str, sizes: tuple) -> Row:
    """Errors of a scan, of the norm of values and the largest of gradients."""
    rng, rows, width = np.random.default_rng(0), sizes[0], sizes[-1]

    def draw(*shape: int) -> np.ndarray:
        x = rng.normal(size=shape)
        return x + 1j * rng.normal(size=shape) if numbers == "complex" else x

    a = rng.uniform(0.5, 0.999, sizes if a_is == "varying" else width)
    if a_is == "matrix":
        a = 0.99 * np.linalg.qr(rng.normal(size=(width, width)))[0]
    if numbers == "complex":
        a = a * np.exp(1j * rng.uniform(0, 6, width))
    # There are no complex numbers of two bytes: b comes as pairs.
    paired = numbers == "complex" and dtype == "bfloat16"
    kind, narrow = ("complex64", "complex64") if numbers == "complex" else ("float32", dtype)
    a, b = jnp.asarray(a, narrow), jnp.asarray(draw(*sizes), narrow)
    h0, g = jnp.asarray(draw(rows, width), kind), jnp.asarray(draw(*sizes), kind)
    if paired:
        b = _pairs(b).astype(dtype)

    def run(a: jax.Array, b: jax.Array, h0: jax.Array, g: jax.Array) -> tuple:
        h, pull = jax.vjp(lambda *x: scan(*x)[0], a, b, h0)
        return h, *pull(_pairs(g.conj()) if paired else g)

    def exact(x: jax.Array) -> np.ndarray:
        x = x.astype(jnp.promote_types(x.dtype, "float32"))
        return np.asarray(_numbers(x) if x.ndim == 4 else x, kind.replace("64", "128"))

    values, *gradients = map(exact, jax.jit(run)(a, b, h0, g))
    if paired:
        gradients[1] = gradients[1].conj()
    expected, *of_arguments = oracle(*map(exact, (a, b, h0, g)))
    errors = [_error(x, y) for x, y in zip(gradients, of_arguments, strict=True)]
    error, of_gradients = _error(values, expected), max(errors)
    holds = error < ALLOWED["float32"] and of_gradients < ALLOWED[dtype]
    return {"error": error, "gradient_error": of_gradients, "holds": bool(holds)}


def _pairs(x: jax.Array) -> jax.Array:
    return jnp.stack([x.real, x.imag], 2)


def _numbers(x: jax.Array) -> jax.Array:
    return lax.complex(x[:, :, 0], x[:, :, 1])


def _error(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.linalg.norm(x - y) / np.linalg.norm(y))


def laws(dtype: str, tiny: bool) -> Iterator[Case]:
    """Each method of elementwise scans, in four problems."""
    sizes = (2, 7, 5) if tiny else (3, 257, 70)
    for method, numbers, a_is in product(methods(), ("complex", "real"), ("constant", "varying")):
        paired = numbers == "complex" and dtype == "bfloat16"
        scan = partial(paired_scan if paired else linear_scan, method=method)
        row = {"what": "law", "entrant": method, "numbers": numbers, "a": a_is, "dtype": dtype}
        yield row, partial(law, scan, numbers, a_is, dtype, sizes)


def dense_laws(tiny: bool) -> Iterator[Case]:
    """Each method of dense scans; at the default precision nothing is promised."""
    sizes = (2, 7, 8) if tiny else (3, 257, 64)
    for method, (dtype, precision) in product(
        sorted(DENSE_METHODS.keys() - {"native"}),
        (("float32", "highest"), ("float32", "default"), ("bfloat16", "highest")),
    ):
        row = {"what": "law", "entrant": method, "numbers": "real", "a": "matrix", "dtype": dtype}
        row["precision"] = precision
        yield row, partial(dense_law, method, dtype, precision, sizes)


def dense_law(method: str, dtype: str, precision: str, sizes: tuple) -> Row:
    """See `law`."""
    with jax.default_matmul_precision(precision):
        found = law(partial(dense_scan, method=method), "real", "matrix", dtype, sizes)
    return found if precision == "highest" else found | {"holds": None}


# Scans.


def looped(unroll: int, a: jax.Array, b: jax.Array) -> jax.Array:
    """One step after another, some of them in one round of the loop."""

    def step(h: jax.Array, inputs: tuple) -> tuple[jax.Array, jax.Array]:
        *a_t, b_t = inputs
        h = (a_t[0] if a_t else a) * h + b_t
        return h, h

    inputs = [jnp.moveaxis(x, 1, 0) for x in (a, b) if x.ndim == 3]
    h = lax.scan(step, jnp.zeros_like(b[:, 0]), tuple(inputs), unroll=unroll)[1]
    return jnp.moveaxis(h, 0, 1)


def timed(scan: Callable, numbers: str, sizes: tuple, rate: float) -> Row:
    """Times of a scan, complex with a constant a or real with a varying one."""
    keys = jax.random.split(jax.random.key(0), 3)
    dtype = "complex64" if numbers == "complex" else "float32"
    constant = numbers == "complex"
    a = jax.random.uniform(keys[0], sizes[-1:] if constant else sizes, minval=0.9, maxval=0.999)
    if constant:
        a = a * jnp.exp(1j * jnp.linspace(0, 3, sizes[-1]))
    b, g = (jax.random.normal(key, sizes, dtype) for key in keys[1:])

    def both(a: jax.Array, b: jax.Array, g: jax.Array) -> tuple:
        h, pull = jax.vjp(scan, a, b)
        return h, pull(g)

    row = measured(forward=(scan, (a, b)), both=(both, (a, b, g)))
    for name, arrays in (("forward", 2 if constant else 3), ("both", 5 if constant else 8)):
        reached = arrays * b.nbytes / row[f"{name}_ms"] / 1e6
        # Digits that count: tiny cases, on a CPU, reach little.
        row[f"{name}_gb_s"] = float(f"{reached:.3g}")
        row[f"{name}_share"] = float(f"{reached / rate:.3g}")
    return row | {"auto": select("linear", sizes)}


def scans(entrants: dict[str, Callable], tiny: bool, rate: float) -> Iterator[Case]:
    """Entrants at all lengths, in the two problems that layers have."""
    lengths = [(32, 1024, 768), (8, 4096, 768), (2, 16384, 768), (1, 65536, 768)]
    for sizes, numbers in product([(2, 6, 8)] if tiny else lengths, ("complex", "real")):
        for name, scan in entrants.items():
            a_is = "constant" if numbers == "complex" else "varying"
            row = {"what": "scan", "entrant": name, "numbers": numbers, "a": a_is, "sizes": sizes}
            yield row, partial(timed, scan, numbers, sizes, rate)


def by_method(names: list[str]) -> dict[str, Callable]:
    """The scans of methods."""
    return {name: partial(_states, name) for name in names}


def _states(method: str, a: jax.Array, b: jax.Array) -> jax.Array:
    return linear_scan(a, b, method=method)[0]


# Training.


class Block(nnx.Module):
    """Norm, recurrent layer and gated linear unit, beside what goes past them."""

    def __init__(self, layer: Callable, width: int, hidden: int, rngs: nnx.Rngs):
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.layer = layer(width, hidden, rngs=rngs)
        self.gates = nnx.Linear(width, 2 * width, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Features [B, T, D]."""
        return x + nnx.glu(self.gates(nnx.gelu(self.layer(self.norm(x))[0])))


class Classifier(nnx.Module):
    """Blocks between an encoder of three channels and ten classes of the mean over time."""

    def __init__(self, layer: Callable, blocks: int, width: int, hidden: int, rngs: nnx.Rngs):
        self.encoder = nnx.Linear(3, width, rngs=rngs)
        self.blocks = nnx.List([Block(layer, width, hidden, rngs) for _ in range(blocks)])
        self.head = nnx.Linear(width, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Scores [B, 10]."""
        x = self.encoder(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


def trained(make: Callable[[], nnx.Module], sizes: tuple) -> Row:
    """Times of a step of a network on inputs of some size."""
    graphdef, params = nnx.split(make())
    x = jax.random.normal(jax.random.key(1), sizes)

    def loss(params: Any, x: jax.Array) -> jax.Array:
        y = nnx.merge(graphdef, params)(x)
        return jnp.mean(jnp.square(y[0] if isinstance(y, tuple) else y))

    def step(params: Any, x: jax.Array) -> Any:
        return jax.tree.map(lambda p, g: p - 1e-3 * g, params, jax.grad(loss)(params, x))

    return measured(step=(step, (params, x)))


def trained_by_torch(layers: int, channels: int, width: int, sizes: tuple) -> Row:
    """Times of a step of PyTorch's LSTM, behind an encoder if the channels are not its width."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    encoder = torch.nn.Linear(channels, width) if channels != width else torch.nn.Identity()
    lstm = torch.nn.LSTM(width, width, layers, batch_first=True)
    network = torch.nn.Sequential(encoder, lstm).to(device)
    x = torch.randn(*sizes, device=device)
    descent = torch.optim.SGD(network.parameters(), 1e-3)

    def step() -> None:
        descent.zero_grad()
        network(x)[0].square().mean().backward()
        descent.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return {"step_ms": repeated(step), "torch": torch.__version__, "device": device}


def trainings(tiny: bool) -> Iterator[Case]:
    """The two networks and their peers."""
    blocks, width, hidden = (1, 8, 6) if tiny else (6, 512, 384)
    sizes = (2, 20, 3) if tiny else (50, 1024, 3)
    kinds = {
        "lru": LRU,
        "lru, associative": partial(LRU, scan_method="associative"),
        "lru, products in bfloat16": partial(LRU, compute_dtype="bfloat16"),
        "lru, complex form": PlainLRU,
    }
    networks: dict[str, Callable[[], Row]] = {}
    for name, layer in kinds.items():
        make = partial(Classifier, layer, blocks, width, hidden)
        networks[name] = partial(trained, lambda make=make: make(rngs=nnx.Rngs(0)), sizes)
    if find_spec("torch"):
        networks["torch.nn.LSTM"] = partial(trained_by_torch, blocks, 3, width, sizes)
    for name, run in networks.items():
        yield {"what": "sCIFAR step", "entrant": name, "sizes": sizes}, run

    units = 8 if tiny else 640
    sizes = (2, 20, units) if tiny else (20, 105, units)
    networks = {
        name: partial(trained, partial(stack, units, [units] * 2, rngs=nnx.Rngs(0)), sizes)
        for name, stack in (("qrnn", QRNNStack), ("lstm", LSTMStack))
    }
    if find_spec("torch"):
        networks["torch.nn.LSTM"] = partial(trained_by_torch, 2, units, units, sizes)
    for name, run in networks.items():
        yield {"what": f"2 x {units} step", "entrant": name, "sizes": sizes}, run


# All of it.


def cases(tiny: bool, rate: float) -> Iterator[Case]:
    """All cases, in the order of what they tell."""
    interpreted = {"pallas"} if jax.default_backend() == "cpu" else set()
    *fast, slow = [name for name in methods() if name not in interpreted]
    peer = {"lax.associative_scan": associative_scan}
    yield from laws("float32", tiny)
    yield from scans({**by_method(fast), **peer}, tiny, rate)
    yield from trainings(tiny)
    yield from dense_laws(tiny)
    yield from laws("bfloat16", tiny)
    for unroll in (16, 64, 1, 256):
        yield from scans({f"lax.scan, unroll {unroll}": partial(looped, unroll)}, tiny, rate)
    yield from scans(by_method([slow]), tiny, rate)


class Record:
    """Rows of results, in a file after each one."""

    def __init__(self, path: Path | None, tiny: bool):
        self.path, self.results = path, {"provenance": provenance(), "tiny": tiny, "rows": []}
        self.lock, self.running = threading.Lock(), None

    def run(self, row: Row, measure: Callable[[], Row]) -> None:
        """Keep what a case finds, or its error."""
        self.running = row
        try:
            found = measure()
        # Whatever it is, other cases may do better.
        except Exception as error:
            message = (str(error).splitlines() or [""])[0][:300]
            found = {"failed": f"{type(error).__name__}: {message}"}
        with self.lock:
            self.running = None
            self.keep(row | found)

    def keep(self, row: Row) -> None:
        """Write and print a row."""
        self.results["rows"].append(row)
        if self.path:
            save(self.path, self.results)
        print(*(f"{key} {value}" for key, value in row.items()), flush=True)

    def end(self, minutes: float) -> None:
        """End the process, which may be in the middle of a case."""
        with self.lock:
            if self.running:
                self.keep(self.running | {"failed": f"cut off after {minutes} minutes"})
            print(table(self.results["rows"]), flush=True)
            os._exit(0)


def table(rows: list[Row]) -> str:
    """Results in Markdown: milliseconds, and in brackets the share of the rate of copies."""
    lines = ["", "| case | entrant | forward | with gradients |", "| --- | --- | ---: | ---: |"]
    for row in rows:
        about = [row["what"], *(str(row[key]) for key in ("numbers", "a", "dtype") if key in row)]
        if "precision" in row:
            about.append(f"{row['precision']} precision")
        if "sizes" in row:
            about.append(" x ".join(f"{size:,}" for size in row["sizes"]))
        if "failed" in row:
            results = ("", row["failed"].replace("|", "/"))
        elif "error" in row:
            fails = " **fails**" if row["holds"] is False else ""
            results = (f"{row['error']:.0e}", f"{row['gradient_error']:.0e}{fails}")
        elif "step_ms" in row:
            results = ("", f"{row['step_ms']:.2f}")
        else:
            results = tuple(
                f"{row[f'{name}_ms']:.2f} ({row[f'{name}_share']:.2f})"
                for name in ("forward", "both")
            )
        lines.append(f"| {', '.join(about)} | {row['entrant']} | {' | '.join(results)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=8, help="after which the program ends")
    parser.add_argument("--tiny", action="store_true", help="sizes that a CPU can try")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where results are written")
    options = parser.parse_args()
    # PyTorch needs memory of the device beside JAX.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    device = re.sub(r"\W+", "-", jax.devices()[0].device_kind.lower())
    path = None if options.tiny else RESULTS / f"accelerator-{device}.json"
    record = Record(options.out or path, options.tiny)
    timer = threading.Timer(60 * options.minutes, record.end, [options.minutes])
    timer.daemon = True
    timer.start()
    rate = record.results["copy_gb_s"] = round(copy_rate(options.tiny), 1)
    for row, measure in cases(options.tiny, rate):
        record.run(row, measure)
    timer.cancel()
    print(table(record.results["rows"]))


if __name__ == "__main__":
    main()
