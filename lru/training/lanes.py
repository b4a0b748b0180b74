"""Lanes: several runs of one configuration as one program, over seeds and a few options.

Lane k is the run of its seed and values, on the data order of all. `vmap` joins the lanes in every
operation, which pays where one lane leaves a processor idle; `map` goes through them one after the
other, a share of them on each core.
"""

import dataclasses
import itertools
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from operator import itemgetter
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lru.batches import Series
from lru.devices import Devices
from lru.scan.cpu import n_cores
from lru.training.config import TrainConfig
from lru.training.optimizer import Optimizer
from lru.training.progress import Stopwatch
from lru.training.update import CompiledByShape, rows_of

logger = logging.getLogger(__name__)

Method = Literal["single", "vmap", "map"]

PHRASES = {
    "vmap": "are joined in every operation (vmap)",
    "map": "take turns in every update (map)",
}

LARGEST_JOINED = 1e6
"""Multiply-adds of a lane's forward pass up to which a CPU joins lanes: above, one program that
goes through them in turn is the faster one (`benchmarks/lanes.py`)."""


class Lane(NamedTuple):
    """One of the runs.

    Attributes:
        seed: of the parameters and the dropout.
        values: options that are its own, by name.
    """

    seed: int
    values: dict[str, float]

    def __str__(self) -> str:
        values = [f"{name}={value:g}" for name, value in self.values.items()]
        return " ".join([f"seed={self.seed}", *values])

    def train(self, config: TrainConfig) -> TrainConfig:
        """The training configuration of the lane."""
        return dataclasses.replace(config, **_of(config, self.values))

    def optimizer(self, optimizer: Optimizer) -> Optimizer:
        """The rule of the updates of the lane."""
        return dataclasses.replace(optimizer, **_of(optimizer, self.values))  # pyright: ignore


def _of(owner: Any, values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if hasattr(owner, name)}


def lane_options(optimizer: Optimizer, of_draw: Sequence[str] = ()) -> list[str]:
    """The options in which lanes may differ.

    Args:
        optimizer: the rule of the updates.
        of_draw: options of the network that may differ between lanes.
    """
    of_rule = [name for name in ("lr_factor", "weight_decay") if hasattr(optimizer, name)]
    return ["lr_base", *of_rule, *of_draw]


def lanes_of(config: TrainConfig, optimizer: Optimizer, of_draw: Sequence[str] = ()) -> list[Lane]:
    """All lanes: for every combination of values, one for each seed.

    Args:
        config: of the training.
        optimizer: the rule of the updates.
        of_draw: options of the network that may differ between lanes.

    Raises:
        ValueError: if `lanes` cannot be read, or names an option that has no lanes.
    """
    grid: dict[str, list[float]] = {}
    allowed = lane_options(optimizer, of_draw)
    for item in config.lanes:
        name, equals, values = item.partition("=")
        if not equals or name not in allowed or name in grid:
            raise ValueError(
                f"lanes must be OPTION=VALUE,VALUE with an option of {', '.join(allowed)} once, "
                f"got {item!r}"
            )
        try:
            grid[name] = [float(value) for value in values.split(",")]
        except ValueError:
            raise ValueError(f"lanes must have numbers as values, got {item!r}") from None
    seeds = range(config.jax_seed, config.jax_seed + config.n_seeds)
    found = [
        Lane(seed, dict(zip(grid, values, strict=True)))
        for values in itertools.product(*grid.values())
        for seed in seeds
    ]
    for lane in found:
        # Both check the values.
        lane.train(config)
        lane.optimizer(optimizer)
    return found


def method_for(lanes: int, n_parameters: int, batch: Any, platform: str) -> Method:
    """The way in which lanes are run, from the shapes of a batch and the platform alone.

    Args:
        lanes: their number.
        n_parameters: of one lane.
        batch: the first one.
        platform: a JAX back end.
    """
    if lanes == 1:
        return "single"
    steps = max(int(np.prod(leaf.shape[:2])) for leaf in jax.tree.leaves(batch))
    joined = platform != "cpu" or n_parameters * steps <= LARGEST_JOINED
    return "vmap" if joined else "map"


def over_lanes(function: Callable, method: Method, n_own: int) -> Callable:
    """A function of one lane, for all.

    Args:
        function: of pytrees.
        method: how.
        n_own: the number of its first arguments that differ between lanes, and have an axis of
            them; the others are shared.
    """
    if method == "single":
        return function
    if method == "vmap":

        def joined(*args: Any) -> Any:
            axes = (0,) * n_own + (None,) * (len(args) - n_own)
            return jax.vmap(function, in_axes=axes)(*args)

        return joined

    def in_turn(*args: Any) -> Any:
        return jax.lax.map(lambda own: function(*own, *args[n_own:]), args[:n_own])

    return in_turn


class Shares(tuple[Future, ...]):
    """States of the lanes of each core, in order, which may still be computed."""


class OnCores:
    """A function of one lane for all of them, which take turns: a share of them on each core.

    XLA runs the small operations of a program one after the other, so each share is a program of
    its own, called from a thread of its own.
    """

    def __init__(self, function: Callable, n_own: int, lanes: int, stopwatch: Stopwatch):
        """Prepare to compile.

        Args:
            function: of pytrees.
            n_own: see `over_lanes`.
            lanes: their number.
            stopwatch: runs while it is compiled.
        """
        n = min(lanes, n_cores())
        bounds = [round(lanes * k / n) for k in range(n + 1)]
        self._sizes = [end - start for start, end in itertools.pairwise(bounds)]
        self._n_own = n_own
        self._split = jax.jit(partial(_split, bounds=bounds))
        in_turn = over_lanes(function, "map", n_own)
        self._compiled = {size: CompiledByShape(in_turn, stopwatch) for size in self._sizes}
        self._threads = ThreadPoolExecutor(n)

    def __call__(self, *args: Any) -> Shares:
        """Begin it; its own first arguments are of all lanes, or shares that a call has given."""
        own = [
            _finished(a) if isinstance(a, Shares) else self._split(a) for a in args[: self._n_own]
        ]
        shares = [(*states, *args[self._n_own :]) for states in zip(*own, strict=True)]
        # Not in the threads, which do not know of the settings of a context, such as of types.
        programs = [self._compiled[n].program(*a) for n, a in zip(self._sizes, shares, strict=True)]
        return Shares(map(self._threads.submit, programs, *zip(*shares, strict=True)))


class Programs:
    """Makes programs of all lanes, on all devices, of functions of one lane.

    Attributes:
        method: how the lanes are run; None until the first call of a program decides on it.
    """

    def __init__(self, lanes: int, n_parameters: int, devices: Devices):
        """Prepare to make programs.

        Args:
            lanes: their number.
            n_parameters: of one lane.
            devices: that compute.
        """
        self.method: Method | None = None
        self._lanes, self._n_parameters, self._devices = lanes, n_parameters, devices

    def each(self, function: Callable) -> Callable:
        """A small function of one lane, for all."""
        return function if self._lanes == 1 else jax.vmap(function)

    def compiled(self, function: Callable, n_own: int, stopwatch: Stopwatch) -> Callable:
        """A function of one lane, for all, compiled for each shape of batch; takes its state over.

        Args:
            function: of (state, ..., batch or series).
            n_own: number of its first arguments that differ between lanes.
            stopwatch: runs while it is compiled.
        """
        compiled: Callable | None = None

        def call(*args: Any) -> Any:
            nonlocal compiled
            if compiled is None:
                compiled = self._compiled(self._method_for(args[-1]), function, n_own, stopwatch)
            return compiled(*args)

        return call

    def _compiled(
        self, method: Method, function: Callable, n_own: int, stopwatch: Stopwatch
    ) -> Callable:
        if method == "map":
            return OnCores(function, n_own, self._lanes, stopwatch)
        of_lanes = over_lanes(function, method, n_own)
        return CompiledByShape(self._devices.on_each(of_lanes, rows_of), stopwatch)

    def _method_for(self, batch: Any) -> Method:
        if self.method is None:
            if isinstance(batch, Series):
                batch = jax.eval_shape(lambda series: series.batch(0), batch)
            platform = jax.default_backend()
            self.method = method_for(self._lanes, self._n_parameters, batch, platform)
            if self._lanes > 1:
                logger.info("%d lanes %s", self._lanes, PHRASES[self.method])
        return self.method


def _finished(shares: Shares) -> list[Any]:
    return [share.result() for share in shares]


def _split(state: Any, bounds: list[int]) -> tuple[Any, ...]:
    shares = [slice(*pair) for pair in itertools.pairwise(bounds)]
    return tuple(jax.tree.map(itemgetter(share), state) for share in shares)


@jax.jit
def _join(*shares: Any) -> Any:
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *shares)


def of_all(state: Any) -> Any:
    """The state of all lanes, which may be in shares."""
    return _join(*_finished(state)) if isinstance(state, Shares) else state


def stacked(states: list[Any]) -> Any:
    """The states of lanes as one, with an axis of lanes before the others; that of one as it is."""
    return states[0] if len(states) == 1 else jax.tree.map(lambda *x: jnp.stack(x), *states)


def lane_of(state: Any, lane: int, lanes: int) -> Any:
    """The state of one lane."""
    return state if lanes == 1 else jax.tree.map(lambda leaf: leaf[lane], state)
