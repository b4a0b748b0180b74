"""Sweeps in the format of W&B: files of parameters, and the points that they ask for."""

import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from lru.registry import known_names
from lru.words import UsageError

SWEEPS = Path(__file__).parents[1] / "sweeps"

Point = dict[str, Any]
"""Values by flag, as an agent of W&B gives them to the program."""

Number = int | float

KEYS = (
    *("name", "description", "program", "method", "metric", "parameters", "command", "run_cap"),
    *("project", "entity", "early_terminate"),
)
"""Keys of a file. Those of a project and of early termination say something to W&B alone."""

PARAMETER_KEYS = (
    *("value", "values", "probabilities", "distribution", "min", "max", "q", "parameters"),
)

MOST_DRAWS = 100
"""Draws for each point that is wanted: where few points differ, there are fewer."""

DIGITS = 6
"""Significant digits of a number that is drawn, so that it can be read and typed."""


class Parameter(NamedTuple):
    """A parameter of a sweep.

    Attributes:
        values: all of them; None if it is drawn from a range.
        draw: one of them.
    """

    values: Sequence[Any] | None
    draw: Callable[[random.Random], Any]

    @property
    def constant(self) -> bool:
        """True if there is one value."""
        return self.values is not None and len(self.values) == 1


class Sweep(NamedTuple):
    """Content of a sweep file.

    Attributes:
        name: of the sweep.
        origin: the file, for messages.
        method: "grid" or "random".
        parameters: by the path of their names; all but those of groups are of length one.
        run_cap: most points; None for all.
        flags: words that the command of the file gives to every run.
    """

    name: str
    origin: str
    method: str
    parameters: Mapping[tuple[str, ...], Parameter]
    run_cap: int | None
    flags: Sequence[str]

    @property
    def varied(self) -> list[str]:
        """The flags that have several values."""
        return list(dict.fromkeys(p[0] for p, each in self.parameters.items() if not each.constant))

    def points(self, n_runs: int | None = None, seed: int = 0) -> list[Point]:
        """The points: of a grid every combination, else so many that are drawn and differ.

        Args:
            n_runs: most points; None for the file's `run_cap`.
            seed: of the draws.

        Raises:
            UsageError: if a grid has a range, or nothing says how many points are to be drawn.
        """
        most = self.run_cap if n_runs is None else n_runs
        if self.method == "grid":
            for path, each in self.parameters.items():
                if each.values is None:
                    raise self._error(f"{'.'.join(path)} needs values, as method is grid")
            lists = [each.values or () for each in self.parameters.values()]
            found = (_nested(self.parameters, values) for values in itertools.product(*lists))
            return list(itertools.islice(found, most))
        if most is None:
            raise self._error("method random needs a number of runs: give --n_runs, or run_cap")
        return list(itertools.islice(self._drawn(seed, most), most))

    def _drawn(self, seed: int, most: int) -> Iterator[Point]:
        """Points that differ from one another."""
        generator, seen = random.Random(seed), set()
        for _ in range(MOST_DRAWS * most):
            values = [each.draw(generator) for each in self.parameters.values()]
            if str(values) not in seen:
                seen.add(str(values))
                yield _nested(self.parameters, values)

    def _error(self, what: str) -> UsageError:
        return UsageError(f"sweep {self.origin}: {what}")


def sweep_names() -> list[str]:
    """The sweeps of the package."""
    return sorted(path.stem for path in SWEEPS.glob("*.yaml"))


def load_sweep(file: str) -> Sweep:
    """A sweep.

    Args:
        file: name of a sweep of the package, or path of a `.yaml` file.

    Raises:
        UsageError: if there is none, or it is not in the format of W&B.
    """
    path = Path(file) if file.endswith((".yaml", ".yml")) else SWEEPS / f"{file}.yaml"
    if not path.is_file():
        raise UsageError(f"there is no sweep {file!r}; {known_names(file, sweep_names())}")
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise UsageError(f"sweep {file}: no YAML ({' '.join(str(error).split())})") from None
    return read_sweep(content, path.stem, file)


def read_sweep(content: Any, name: str, origin: str) -> Sweep:
    """A sweep from the content of a file.

    Args:
        content: of the file.
        name: of the sweep if the file gives none.
        origin: the file, for messages.

    Raises:
        UsageError: if it is not in the format of W&B.
    """

    def check(right: bool, what: str) -> None:
        if not right:
            raise UsageError(f"sweep {origin}: {what}")

    check(isinstance(content, dict), "the file must be a mapping with method and parameters")
    for key in content:
        check(key in KEYS, f"unknown key {key!r}; {known_names(str(key), KEYS)}")
    method = content.get("method")
    check(method != "bayes", "method bayes needs an account: start it by wandb agent")
    check(method in ("grid", "random"), f"method must be grid or random, got {method!r}")
    cap = content.get("run_cap")
    check(cap is None or (type(cap) is int and cap > 0), f"run_cap must be above 0, got {cap!r}")
    command = content.get("command") or []
    check(isinstance(command, list), f"command must be a list of words, got {command!r}")
    words = itertools.dropwhile(lambda word: not word.startswith("--"), map(str, command))
    try:
        parameters = dict(_parameters(content.get("parameters"), ()))
    except UsageError as error:
        raise UsageError(f"sweep {origin}: {error}") from None
    flags = [word for word in words if not word.startswith("${")]
    return Sweep(str(content.get("name", name)), origin, str(method), parameters, cap, flags)


def _parameters(content: Any, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The parameters of a mapping, those of groups among them, by their paths."""
    if not isinstance(content, dict) or not content:
        place = ".".join((*above, "parameters"))
        raise UsageError(f"{place} must be a mapping from flags to their values, got {content!r}")
    for name, given in content.items():
        path = (*above, str(name))
        if isinstance(given, dict) and given.keys() == {"parameters"}:
            yield from _parameters(given["parameters"], path)
        else:
            yield path, _parameter(".".join(path), given)


def _parameter(name: str, given: Any) -> Parameter:
    if not isinstance(given, dict):
        raise UsageError(f"{name} must have value, values or a distribution, got {given!r}")
    for key in given:
        if key not in PARAMETER_KEYS:
            known = known_names(str(key), PARAMETER_KEYS)
            raise UsageError(f"{name} has an unknown key {key!r}; {known}")
    ways = [key for key in ("value", "values", "min") if key in given]
    kind = given.get("distribution")
    if kind in RANGES or (kind is None and ways == ["min"]):
        return _range(name, given)
    if kind not in (None, "constant", "categorical"):
        known = known_names(str(kind), ["constant", "categorical", *RANGES])
        raise UsageError(f"{name} has an unknown distribution {kind!r}; {known}")
    if len(ways) != 1 or ways == ["min"]:
        raise UsageError(f"{name} must have one of value, values, and min with max, got {given!r}")
    values = [given["value"]] if ways == ["value"] else given["values"]
    if not isinstance(values, list) or not values:
        raise UsageError(f"values of {name} must be a list that is not empty, got {values!r}")
    weights = given.get("probabilities")
    if weights is not None and not (
        isinstance(weights, list)
        and len(weights) == len(values)
        and all(_is_number(each) and each >= 0 for each in weights)
        and sum(weights) > 0
    ):
        raise UsageError(f"probabilities of {name} must be a number for each value, got {weights}")
    return Parameter(values, lambda generator: generator.choices(values, weights)[0])


def _range(name: str, given: Mapping[str, Any]) -> Parameter:
    """A parameter that is drawn from a range; without a distribution, as W&B takes it."""
    found: dict[str, Any] = {"min": None, "max": None, "q": 1, **given}
    low, high, step = (found[key] for key in ("min", "max", "q"))
    for key, value in (("min", low), ("max", high), ("q", step)):
        if not _is_number(value):
            hint = ", as YAML reads 1e-4: write 1.0e-4" if isinstance(value, str) else ""
            raise UsageError(f"{key} of {name} must be a number, got {value!r}{hint}")
    whole = type(low) is int and type(high) is int
    kind = given.get("distribution") or ("int_uniform" if whole else "uniform")
    if not low <= high or step <= 0:
        raise UsageError(f"{name} must have min up to max, and q above 0, got {dict(given)}")
    if kind == "int_uniform" and not whole:
        raise UsageError(f"min and max of {name} must be whole numbers, got {low} and {high}")
    if "log" in kind and low <= 0:
        raise UsageError(f"min of {name} must be above 0 for {kind}, got {low}")
    return Parameter(None, lambda generator: RANGES[kind](generator, low, high, step))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _log_uniform(generator: random.Random, low: Number, high: Number) -> float:
    return math.exp(generator.uniform(math.log(low), math.log(high)))


def _short(value: float, low: Number, high: Number) -> Number:
    return min(max(float(f"{value:.{DIGITS}g}"), low), high)


def _multiple(value: float, step: Number) -> Number:
    return type(step)(float(f"{round(value / step) * step:.{DIGITS}g}"))


RANGES: dict[str, Callable[[random.Random, Number, Number, Number], Number]] = {
    "uniform": lambda g, low, high, _: _short(g.uniform(low, high), low, high),
    "int_uniform": lambda g, low, high, _: g.randint(int(low), int(high)),
    "q_uniform": lambda g, low, high, q: _multiple(g.uniform(low, high), q),
    "log_uniform_values": lambda g, low, high, _: _short(_log_uniform(g, low, high), low, high),
    "q_log_uniform_values": lambda g, low, high, q: _multiple(_log_uniform(g, low, high), q),
}
"""Draws from a range by the names of W&B, each from (generator, min, max, q)."""


def _nested(paths: Mapping[tuple[str, ...], Any], values: Sequence[Any]) -> Point:
    """The point of these values, those of groups in mappings."""
    point: Point = {}
    for path, value in zip(paths, values, strict=True):
        place = point
        for name in path[:-1]:
            place = place.setdefault(name, {})
        place[path[-1]] = value
    return point
