"""Runs of a sweep: a command and a folder for each point, all checked before any starts."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lru.config import Config
from lru.defaults import resolved
from lru.flags import CommandConfig, all_options, parse, written_out
from lru.launch.joining import Candidate, joined
from lru.launch.sweep_files import Point, Sweep
from lru.options import of_dataclass
from lru.origins import as_typed
from lru.run_folders import result_hash
from lru.training.runs import Run
from lru.words import LISTS, UsageError, spans

NOT_OF_A_SWEEP = {"name", "reset", "eval_only", *of_dataclass(CommandConfig)} - {
    *("recipe", "memory", "protocol", "trust_plugins", "match_params"),
}
"""Flags that a run of a sweep cannot have: it has a name of its own, under which it goes on."""

_LONGEST_NAME = 100


class PlannedRun(NamedTuple):
    """A run of a sweep.

    Attributes:
        run: its folder, which may not be there yet.
        words: of the command line of `lru train`.
        config: what they say.
    """

    run: Run
    words: Sequence[str]
    config: Config

    @property
    def outcome(self) -> Mapping[str, Any] | None:
        """Outcome of the run, as its folder has it, if it has ended by itself."""
        file = self.run.summary_file
        return json.loads(file.read_text()) if file.is_file() else None


def plan(
    sweep: Sweep,
    points: Sequence[Point],
    flags: Sequence[str] = (),
    *,
    name: str | None = None,
    join_lanes: bool = False,
) -> list[PlannedRun]:
    """The runs of a sweep, of which no two have the same values.

    A run is named after the values in which the points differ, and a hash of all values that change
    its result: points that are added to a sweep leave the others what they are.

    Args:
        sweep: to which the points belong.
        points: values by flag.
        flags: words of a command line that hold for all points, in place of constants.
        name: of the folder of the runs; None for that of the sweep.
        join_lanes: make one run of several lanes of points that can be its lanes.

    Raises:
        UsageError: if a flag is unknown, or has no place in a sweep.
        ValueError: if a value of a point is out of range, or does not fit the others.
    """
    _check_values(flags, "the command line")
    shared = [*sweep.flags, *flags]
    given = {flag for flag, _ in _values(shared)}
    whole = _whole_names(points[0], sweep)
    points = [{whole[flag]: value for flag, value in point.items()} for point in points]
    varied = [whole[flag] for flag in sweep.varied]
    _check_flags(given | points[0].keys(), given & {*varied} - {*LISTS}, sweep)

    def words_of(point: Point) -> list[str]:
        left = {flag: value for flag, value in point.items() if flag not in given - {*LISTS}}
        first = {flag: value for flag, value in left.items() if flag not in varied}
        last = {flag: value for flag, value in left.items() if flag in varied}
        return [*_words(first), *shared, *_words(last)]

    def candidate(point: Point) -> Candidate:
        words = words_of(point)
        _check_values(words, f"sweep {sweep.origin}")
        return Candidate(point, resolved(parse(words, program="lru sweep")[1]))

    found = list(map(candidate, points))
    if join_lanes:
        found = [
            each if isinstance(each, Candidate) else candidate(each)
            for each in joined(found, varied)
        ]
    planned: dict[str, PlannedRun] = {}
    for point, config in found:
        shown = {f: v for f, v in point.items() if f in varied or f not in points[0]}
        run_name = f"{_label(shown)}-{result_hash(config)}"
        folder = Path(config.run.runs_dir) / (name or sweep.name)
        words = [*words_of(point), f"--runs_dir={folder}", f"--name={run_name}"]
        planned.setdefault(run_name, PlannedRun(Run(folder / run_name), words, config))
    return list(planned.values())


def _whole_names(names: Iterable[str], sweep: Sweep) -> dict[str, str]:
    """Names of flags without abbreviations and aliases, by those of a sweep.

    Raises:
        UsageError: if two are one flag.
    """
    whole: dict[str, str] = {}
    for name in names:
        flag, dot, item = name.partition(".")
        whole[name] = f"{_values([f'--{flag}='])[0][0]}{dot}{item}"
    for flag in whole.values():
        same = [name for name in whole if whole[name] == flag]
        if len(same) > 1:
            raise UsageError(
                f"sweep {sweep.origin}: {', '.join(same)} are one flag, {flag}: leave one"
            )
    return whole


def _words(values: Point) -> list[str]:
    """The words that an agent of W&B makes of values."""
    return [f"--{flag}={value}" for flag, value in values.items()]


def _values(words: Sequence[str]) -> list[tuple[str, str]]:
    """The flags of a command line, and what is typed behind each."""
    out = written_out(words)
    return [
        (out[start].removeprefix("--"), " ".join(out[start + 1 : end])) for start, end in spans(out)
    ]


def _check_values(words: Sequence[str], origin: str) -> None:
    """Refuse flags that nobody has, and values that are not of the type of their flag.

    Raises:
        ValueError: if there is one.
    """
    typed = {flag: value for flag, value in _values(words) if flag not in LISTS}
    as_typed(typed, {flag: option.kind for flag, option in all_options().items()}, origin)


def _check_flags(all_of_them: set[str], twice: set[str], sweep: Sweep) -> None:
    """Refuse flags that have no place in a sweep, or in this one.

    Raises:
        UsageError: if there is one.
    """
    for flag in sorted(all_of_them & NOT_OF_A_SWEEP):
        raise UsageError(
            f"{flag} has no place in a sweep, each run of which has its own name and goes on if it "
            "is there; to start over, give the sweep another --name"
        )
    for flag in sorted(twice):
        raise UsageError(f"{flag} has several values in sweep {sweep.origin}: leave out --{flag}")


def _label(values: Point) -> str:
    """Values as a part of the name of a folder."""
    flat: dict[str, Any] = {}
    for flag, value in values.items():
        items = value.items() if isinstance(value, Mapping) else [(flag, value)]
        flat |= items
    shown = [
        f"{flag}={'+'.join(map(str, value)) if isinstance(value, list) else value}"
        for flag, value in flat.items()
    ]
    return re.sub(r"[^\w.=,+-]", "_", ",".join(shown) or "only", flags=re.ASCII)[:_LONGEST_NAME]
