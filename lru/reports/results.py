"""Results of runs: which trainings repeat each other, and what each has on record.

Nothing here needs the data, or a checkpoint.
"""

import csv
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

from lru.analysis.methods import Analysis
from lru.analysis_runs import subject_values
from lru.config import Config, chosen
from lru.experiment import load_plugins_of
from lru.tasks import TASKS, Task
from lru.training.hooks import Select
from lru.training.lanes import Lane, lanes_of
from lru.training.runs import Run
from lru.training.trackers import read_jsonl

Line = Mapping[str, Any]
"""A line of `metrics.jsonl`."""

OF_SEEDS = ("jax_seed", "data_seed", "n_seeds", "lanes")
"""Options in which repetitions of one training may differ; values of lanes stand for themselves."""


def task_of(config: Config) -> type[Task]:
    """The task of a run."""
    return TASKS[chosen(config.flat())["task"]]


def objective_of(task: type[Task]) -> str:
    """The metric that selects the best evaluation, as `split/metric`."""
    return f"{task.selects_on}/{task.objective}"


def lines_of(run: Run) -> list[dict[str, Any]]:
    """All lines that a run has logged."""
    return read_jsonl(run.metrics_file) if run.metrics_file.exists() else []


def evaluations(lines: Sequence[Line], task: type[Task]) -> list[Line]:
    """The lines of evaluations."""
    return [line for line in lines if objective_of(task) in line]


def best_line(lines: Sequence[Line], task: type[Task]) -> Line:
    """The evaluation that a task selects; nothing before the first."""
    name = objective_of(task)
    select = Select(name, higher_is_better=task.higher_is_better, lanes=1)
    found = evaluations(lines, task)
    return max(found, key=lambda line: select.score({name: float(line[name])}), default={})


class Repetition(NamedTuple):
    """A training: a run, or a lane of one.

    Attributes:
        run: its folder.
        config: of the run.
        plugins: that were loaded to read it.
        lane: which of the lanes.
        lanes: their number.
        seed: of the parameters and the dropout.
        subject: name of the training that is looked at, of an analysis.
        options: the values that change the result, but for seeds, by flag.
        lines: its log, with the names of a run of one lane.
    """

    run: Run
    config: Config
    plugins: str | Sequence[str] | None
    lane: int
    lanes: int
    seed: int
    subject: str
    options: Mapping[str, Any]
    lines: Sequence[Line]

    @property
    def name(self) -> str:
        """Name of the run, and the lane if there are several."""
        name = self.run.path.resolve().name
        return name if self.lanes == 1 else f"{name}, lane {self.lane}"

    @property
    def task(self) -> type[Task]:
        """The task that was learned."""
        return task_of(self.config)

    @property
    def updates(self) -> int:
        """Updates that are on record."""
        return max(line["step"] for line in self.lines)

    def evaluation(self, last: bool = False) -> Line:
        """The evaluation that counts: that which the task selects, or the last one.

        Args:
            last: take the last one.
        """
        if last:
            return evaluations(self.lines, self.task)[-1]
        return best_line(self.lines, self.task)

    def curves(self) -> "dict[str, Curve]":
        """The curves of the last evaluation, by name; where several belong together, none."""
        folder = self.run.path / "curves"
        folder = folder if self.lanes == 1 else folder / f"lane{self.lane}"
        found = {}
        for path in sorted(folder.glob("*.csv")):
            (_, x_label, y_label), *rows = csv.reader(path.read_text().splitlines())
            if len({name for name, _, _ in rows}) == 1:
                points = [{"step": float(x), y_label: float(y)} for _, x, y in rows]
                found[path.stem] = Curve(x_label, y_label, points)
        return found


class Curve(NamedTuple):
    """A curve that an evaluation found, such as accuracy by length.

    Attributes:
        x_label: of x, which the points have as "step".
        y_label: of y, which they have under this name.
        points: in order.
    """

    x_label: str
    y_label: str
    points: Sequence[Line]


class Group(NamedTuple):
    """Trainings that differ in nothing but their seeds.

    Attributes:
        options: the values that they share, by flag.
        repetitions: the trainings.
    """

    options: Mapping[str, Any]
    repetitions: list[Repetition]


def repetitions_of(run: Run, plugins: str | Sequence[str] | None = None) -> list[Repetition]:
    """The trainings of a run, one a lane.

    Args:
        run: its folder.
        plugins: to load before its configuration is read, in place of those that it names.

    Raises:
        ValueError: if the folder names plugins that have not been loaded and none are given.
    """
    load_plugins_of(run, plugins)
    config = Config.load(run.config_file)
    # The run has started with these names of options, so they are right.
    named = [item.partition("=")[0] for item in config.train.lanes]
    lanes = lanes_of(config.train, config.make_optimizer(), named)
    lines, shared = lines_of(run), _options(config)
    subjects: list[Repetition] = []
    if issubclass(task_of(config), Analysis):
        of_run = Run(run.path.resolve().parents[1])
        if not of_run.config_file.is_file():
            raise FileNotFoundError(
                f"the run that {run.path} looks at is gone: {of_run.path} has no "
                f"{of_run.config_file.name}"
            )
        subjects = repetitions_of(of_run, plugins)
    found = []
    for k, lane in enumerate(lanes):
        options, subject = {**shared, **lane.values}, ""
        if subjects:
            of = subjects[k % len(subjects)]
            subject = f"{of.run.path.resolve()} {of.lane}"
            # Its model and its data are those of the analysis, but for values of lanes.
            model_and_data = subject_values(of.config).keys()
            options |= {
                f"run.{n}": value
                for n, value in of.options.items()
                if n.split(".")[0] not in model_and_data or options[n] != value
            }
        of_lane = _of_lane(lines, k, lanes)
        found.append(
            Repetition(run, config, plugins, k, len(lanes), lane.seed, subject, options, of_lane)
        )
    return found


def _options(config: Config) -> dict[str, Any]:
    """The values that change a result, but for seeds; each option of the data by itself."""
    values = config.result_values()
    of_data = values.pop("data_options")
    kept = {name: value for name, value in values.items() if name not in OF_SEEDS}
    return kept | {f"data_options.{name}": value for name, value in of_data.items()}


def _of_lane(lines: Sequence[Line], lane: int, lanes: Sequence[Lane]) -> Sequence[Line]:
    """The log of a lane by itself."""
    if len(lanes) == 1:
        return lines
    prefix = f"lane{lane}/"
    found = []
    for line in lines:
        own = {name.removeprefix(prefix): v for name, v in line.items() if name.startswith(prefix)}
        if own:
            of_all = {name: value for name, value in line.items() if "/" not in name}
            found.append({**of_all, **own})
    return found


def grouped(repetitions: Sequence[Repetition]) -> tuple[list[Group], list[str]]:
    """Gather trainings that differ in nothing but their seeds.

    Args:
        repetitions: of all runs.

    Returns:
        The groups, in the order of their first members, and a sentence about each training that is
        left out: one that was never evaluated, or has the seeds of another.

    Raises:
        ValueError: if none is left.
    """
    groups: dict[Hashable, Group] = {}
    seen: dict[Hashable, str] = {}
    left_out = []
    for each in repetitions:
        if not evaluations(each.lines, each.task):
            left_out.append(f"{each.name} has not been evaluated yet.")
            continue
        key = frozenset((name, _hashable(value)) for name, value in each.options.items())
        seeds = (key, each.seed, each.config.train.order_seed, each.subject)
        if seeds in seen:
            left_out.append(f"{each.name} has the options and the seeds of {seen[seeds]}.")
            continue
        seen[seeds] = each.name
        groups.setdefault(key, Group(each.options, [])).repetitions.append(each)
    if not groups:
        names = ", ".join(dict.fromkeys(str(each.run.path) for each in repetitions))
        raise ValueError(f"runs must have been evaluated at least once, got {names}")
    return list(groups.values()), left_out


def _hashable(value: Any) -> Hashable:
    return value if isinstance(value, Hashable) else repr(value)


def differing(groups: Sequence[Group]) -> list[str]:
    """The options in which groups differ, by flag.

    One that only some have, all with one value, comes with the model or the task that has it, and
    is left out.
    """
    names = dict.fromkeys(name for group in groups for name in group.options)
    return [
        name
        for name in names
        if len({_hashable(g.options[name]) for g in groups if name in g.options}) > 1
    ]


def distinguishing(groups: Sequence[Group], names: Sequence[str]) -> list[str]:
    """The first of some options that are enough to tell groups apart.

    Args:
        groups: to tell apart.
        names: of options, those to be preferred first.
    """
    kept: list[str] = []
    for name in names:
        if _parts(groups, [*kept, name]) > _parts(groups, kept):
            kept.append(name)
    return kept


def _parts(groups: Sequence[Group], names: Sequence[str]) -> int:
    return len({tuple(_hashable(group.options.get(name)) for name in names) for group in groups})


class Grid(NamedTuple):
    """Groups in rows and columns, by two options whose values are words.

    Attributes:
        rows: values of the first option, at least one of which is in several columns.
        columns: values of the second, likewise.
        places: row and column of each group.
    """

    rows: list[str]
    columns: list[str]
    places: list[tuple[int, int]]


def grid_of(groups: Sequence[Group], names: Sequence[str]) -> Grid | None:
    """The grid that groups form, if two options of words tell them apart, and each twice.

    Args:
        groups: in their order.
        names: the options that tell them apart.
    """
    if len(names) != 2:
        return None
    values = [[group.options.get(name) for group in groups] for name in names]
    if not all(isinstance(value, str) for each in values for value in each):
        return None
    rows, columns = (list(dict.fromkeys(map(str, each))) for each in values)
    if len(groups) <= max(len(rows), len(columns)):
        return None
    return Grid(
        rows, columns, [(rows.index(a), columns.index(b)) for a, b in zip(*values, strict=True)]
    )
