"""Time of a whole training step beside the same model with plain complex arithmetic.

python benchmarks/train_step.py [--repetitions 15]

The plain model has the same parameters and blocks, but its recurrence multiplies complex matrices,
repeats the eigenvalues over time and goes through `jax.lax.associative_scan` under autodiff, as
public LRU code does. The entrants take turns; medians and the ratio of each pair are shown.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lru.dataloaders import Card
from lru.dataloading import Batch
from lru.layers import LAYERS, LRU, DiagonalRNN
from lru.models import ModelConfig
from lru.tasks.classification import Classification
from lru.training.config import TrainConfig
from lru.training.optimizer import make_optimizer, make_schedule
from lru.training.state import TrainState, init_state, make_steps

# Tokens in, one of ten classes out, as in ListOps.
CARD = Card(
    name="benchmark",
    version=0,
    kind="tokens",
    n_classes=10,
    vocab_size=16,
    targets="sequence",
    max_length=0,
)


class PlainRecurrence:
    """The diagonal recurrence written with complex arrays and `jax.lax.associative_scan`."""

    def __call__(self: Any, x: jax.Array, state: Any = None, **_: Any) -> tuple[jax.Array, Any]:
        """Run over x [B, T, D] from a zero state."""
        n = self.d_hidden
        B = self.B[...][:, :n].T + 1j * self.B[...][:, n:].T
        C = self.C[...][:n].T - 1j * self.C[...][n:].T
        if self.gamma_log is not None:
            B = B * jnp.exp(self.gamma_log[...])[:, None]
        eigenvalues = self.eigenvalues()[""]

        def combine(first: tuple, second: tuple) -> tuple:
            return second[0] * first[0], second[0] * first[1] + second[1]

        def one(x: jax.Array) -> jax.Array:
            repeated = jnp.repeat(eigenvalues[None], x.shape[0], axis=0)
            driven = jax.vmap(lambda x_t: B @ x_t)(x)
            h = jax.lax.associative_scan(combine, (repeated, driven))[1]
            return jax.vmap(lambda h_t, x_t: (C @ h_t).real + self.D[...] * x_t)(h, x)

        return jax.vmap(one)(x), state


@LAYERS.register("plain-lru")
class PlainLRU(PlainRecurrence, LRU):
    """The LRU in plain form."""


@LAYERS.register("plain-diag-rnn")
class PlainDiagonalRNN(PlainRecurrence, DiagonalRNN):
    """The diagonal RNN in plain form."""


def make_step(model: str, sizes: argparse.Namespace) -> tuple[Callable, TrainState]:
    """A compiled training step, and the state before it."""
    config = ModelConfig(
        model=model, n_layers=sizes.n_layers, d_model=sizes.d_model, d_hidden=sizes.d_hidden
    )
    task = Classification(CARD, config)
    train = TrainConfig()
    optimizer = make_optimizer(train, make_schedule(train, 1, 100))
    graphdef, state = init_state(task, optimizer, 0)
    step = jax.jit(make_steps(task, graphdef, optimizer).train, donate_argnums=0)
    return step, state


def make_batch(sizes: argparse.Namespace) -> Batch:
    """Random tokens, all rows full."""
    rng = np.random.default_rng(0)
    return Batch(
        inputs=rng.integers(1, 16, (sizes.batch_size, sizes.steps), dtype=np.uint8),
        labels=rng.integers(10, size=sizes.batch_size).astype(np.int32),
        weights=np.ones(sizes.batch_size, np.float32),
        lengths=None,
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Time of a whole training step.")
    for name, default in [
        ("batch_size", 8),
        ("steps", 1024),
        ("d_model", 128),
        ("d_hidden", 128),
        ("n_layers", 2),
        ("repetitions", 15),
    ]:
        parser.add_argument(f"--{name}", type=int, default=default)
    sizes = parser.parse_args()
    batch = make_batch(sizes)
    for model in ("lru", "diag-rnn"):
        entrants = {name: make_step(name, sizes) for name in (model, f"plain-{model}")}
        seconds: dict[str, list[float]] = {name: [] for name in entrants}
        for repetition in range(sizes.repetitions + 1):
            for name, (step, state) in entrants.items():
                start = time.perf_counter()
                state = jax.block_until_ready(step(state, batch))
                elapsed = time.perf_counter() - start
                entrants[name] = (step, state)
                if repetition:  # The first one compiles.
                    seconds[name].append(elapsed)
        ours, plain = seconds[model], seconds[f"plain-{model}"]
        ratios = [b / a for a, b in zip(ours, plain, strict=True)]
        print(
            f"{model:10} {1e3 * statistics.median(ours):8.1f} ms   "
            f"plain {1e3 * statistics.median(plain):8.1f} ms   "
            f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
