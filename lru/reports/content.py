"""Content of a report: its tables, pictures and sentences, in Markdown."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lru.analysis.comparisons import (
    plot_bars,
    plot_by_option,
    plot_learning_curves,
    plot_panels,
)
from lru.analysis.drawing import drawn
from lru.analysis.methods import Analysis
from lru.config import CHOICES
from lru.dataloaders.store.cache import CacheError
from lru.registry import known_names
from lru.reports.inside import MOST_STEPS, MOST_UNITS, draw_inside
from lru.reports.page import code, table
from lru.reports.results import (
    Group,
    Repetition,
    differing,
    distinguishing,
    grid_of,
    objective_of,
)
from lru.tasks import Task
from lru.tasks.findings import HeatMap
from lru.training.checkpoints import Checkpoints
from lru.training.report import from_to, with_deviation

LONGEST_NAME = 60
"""Characters of a title, or of the name of a folder, in which names of runs stand."""

_MOST_OPTIONS, _MOST_METRICS = 4, 8
"""Columns of options, and of metrics, in one table; of more, other tables have the rest."""

_SPEAKING = (*(choice.flag for choice in CHOICES), "dataset")
"""Options whose values are names, which need not be named themselves."""


class Report:
    """The content of a report on its groups; arguments are those of `lru.reports.write_report`."""

    def __init__(self, groups: Sequence[Group], metrics: Sequence[str], by: str | None, last: bool):
        self.groups, self.last = groups, last
        self.lines = [[each.evaluation(last) for each in group.repetitions] for group in groups]
        self.tasks = list(dict.fromkeys(group.repetitions[0].task for group in groups))
        self.objectives = list(dict.fromkeys(map(objective_of, self.tasks)))
        # Those that speak for themselves come first.
        self.names = sorted(differing(groups), key=lambda name: name not in _SPEAKING)
        self.told = distinguishing(groups, self.names)
        self.grid = grid_of(groups, self.told)
        self.labels = self._labels()
        self.metrics = self._metrics(metrics)
        self.plotted = list(metrics) or self.objectives
        self.by = self._numeric_option(by)
        self.sizes = {
            "parameters": [_n_parameters(group.repetitions[0]) for group in groups],
            "state": [_state_size(group.repetitions[0]) for group in groups],
        }

    @property
    def title(self) -> str:
        """Title with the names of the runs, or their number."""
        names = dict.fromkeys(
            each.run.path.resolve().name for group in self.groups for each in group.repetitions
        )
        listed = ", ".join(names)
        return f"Report on {listed if len(listed) <= LONGEST_NAME else f'{len(names)} runs'}"

    def _labels(self) -> list[str]:
        """A label for each group, of the options that tell them apart."""
        labels = [_label(group.options, self.told or ["model"]) for group in self.groups]
        if len({*labels}) < len(labels):
            return [group.repetitions[0].name for group in self.groups]
        return labels

    def _metrics(self, wanted: Sequence[str]) -> list[str]:
        """The metrics of the table."""
        found = [*self.objectives]
        found += [
            name
            for group in self.lines
            for line in group
            for name, value in line.items()
            if "/" in name and not name.endswith("/sd") and isinstance(value, int | float)
        ]
        known = list(dict.fromkeys(found))
        for name in wanted:
            if name not in known:
                raise ValueError(f"unknown metric {name!r}; {known_names(name, known)}")
        return list(dict.fromkeys(wanted)) or known

    def _numeric_option(self, wanted: str | None) -> str | None:
        """The option to plot results against, if there is one."""
        values = {
            name: {group.options.get(name) for group in self.groups}
            for name in self.names
            if all(_is_number(group.options.get(name)) for group in self.groups)
        }
        if wanted is not None:
            if wanted not in values:
                raise ValueError(
                    "by must be a numeric option in which the groups differ, of "
                    f"{', '.join(values) or 'which there is none'}; got {wanted!r}"
                )
            return wanted
        # A line needs two points.
        fit = [name for name in values if len(self._lines_by(name)) < len(self.groups)]
        return max(fit, key=lambda name: len(values[name]), default=None)

    def _others(self, option: str) -> list[str]:
        """A label for each group without an option."""
        rest = [name for name in self.names if name != option]
        told = [group._replace(options=_without(group.options, option)) for group in self.groups]
        names = distinguishing(told, rest)
        return [_label(group.options, names or ["model"]) for group in self.groups]

    def _lines_by(self, option: str) -> dict[str, dict[int | float, int]]:
        """For each combination of the other options, the number of the group at each value."""
        lines: dict[str, dict[int | float, int]] = {}
        for number, label in enumerate(self._others(option)):
            lines.setdefault(label, {})[self.groups[number].options[option]] = number
        return lines

    def _values(self, metric: str) -> list[list[float]]:
        """The values of a metric of each group, those of the repetitions that have it."""
        return [[line[metric] for line in group if metric in line] for group in self.lines]

    # The text.

    def text(self, left_out: Sequence[str], folder: Path) -> str:
        """The report in Markdown; its pictures go into the folder."""
        parts = [f"# {self.title}", *self._introduction(), *left_out]
        parts += ["## Results", *self._results()]
        for number, metric in enumerate(self.plotted, 1):
            parts += self._comparison(metric, f"results-{number}.png", folder)
        parts += self._found(folder)
        parts += self._curves(folder)
        parts += self._inside(folder)
        parts += ["## Trainings", self._trainings()]
        return "\n\n".join(parts) + "\n"

    def _introduction(self) -> list[str]:
        count = sum(len(group.repetitions) for group in self.groups)
        repeated = any(len(group.repetitions) > 1 for group in self.groups)
        what = f"{_counted(count, 'training')} in {_counted(len(self.groups), 'group')}"
        if repeated:
            what += ", whose members differ in their seeds alone: values are means ± sample "
            what += "standard deviations over the n members"
        which = "the last one" if self.last else " or ".join(dict.fromkeys(map(_best, self.tasks)))
        shared = [name for name in _SPEAKING if name not in self.names]
        options = self.groups[0].options
        same = ", ".join(f"{name} {code(str(options[name]))}" for name in shared if name in options)
        parts = [f"{what}. The evaluation that counts is {which}."]
        return [*parts, f"The same in all: {same}."] if same else parts

    def _results(self) -> list[str]:
        """Tables with a row for each group: one of all metrics, or of many one a split."""
        metrics = self.metrics
        splits = dict.fromkeys(name.split("/")[0] for name in metrics)
        if len(metrics) <= _MOST_METRICS:
            tables = [metrics]
        else:
            tables = [[name for name in metrics if name.split("/")[0] == split] for split in splits]
        found = [self._table(each) for each in tables]
        hidden = [name for name in self.names if name not in self._columns]
        if hidden:
            header = ["", *self.labels]
            rows = [[code(n), *(_shown(g.options.get(n)) for g in self.groups)] for n in hidden]
            found += ["Further options in which the groups differ:", table(header, rows)]
        return found

    @property
    def _columns(self) -> list[str]:
        """The options in the table: all in which the groups differ, or enough to tell them."""
        return self.names if len(self.names) <= _MOST_OPTIONS else self.told

    def _table(self, metrics: Sequence[str]) -> str:
        names = self._columns
        # Runs that have not ended, and earlier ones, do not tell their states.
        sizes = {n: s for n, s in self.sizes.items() if n == "parameters" or any(s)}
        header = [*map(code, names), "n", "updates", *map(code, metrics), *sizes]
        found = zip(*map(self._values, metrics), strict=True)
        rows = []
        of_groups = zip(*sizes.values(), strict=True)
        for group, numbers, values in zip(self.groups, of_groups, found, strict=True):
            if not any(values):
                continue
            rows.append(
                [
                    *(_shown(group.options.get(name)) for name in names),
                    str(len(group.repetitions)),
                    from_to([each.updates for each in group.repetitions]),
                    *(
                        with_deviation(metric, each) if each else "-"
                        for metric, each in zip(metrics, values, strict=True)
                    ),
                    *("-" if size is None else f"{size:,}" for size in numbers),
                ]
            )
        words = [
            code(name)
            for name in names
            if not all(_is_number(group.options.get(name, 0)) for group in self.groups)
        ]
        return table(header, rows, {*header} - {*words})

    def _comparison(self, metric: str, name: str, folder: Path) -> list[str]:
        """A picture of one metric of all groups, if several have it."""
        values = self._values(metric)
        if len([each for each in values if each]) < 2:
            return []
        if self.grid is not None:
            return self._grid(metric, values, folder / name)
        if self.by is None:
            plot_bars(dict(zip(self.labels, values, strict=True)), metric, folder / name)
            what, marks = f"{code(metric)} of each group", "Dots are single trainings"
        else:
            lines = {
                label: {x: values[number] for x, number in line.items() if values[number]}
                for label, line in self._lines_by(self.by).items()
            }
            plot_by_option(lines, self.by, metric, folder / name)
            what, marks = f"{code(metric)} by {code(self.by)}", "Dots are means"
        return [
            f"### {what}",
            f"![{metric}]({name})",
            f"*{marks}; lines with ends are ± one sample standard deviation.*",
        ]

    def _grid(self, metric: str, values: Sequence[Sequence[float]], path: Path) -> list[str]:
        """A table and a picture of one metric with rows and columns by option."""
        assert self.grid is not None
        rows, columns, places = self.grid
        means = np.full((len(rows), len(columns)), np.nan)
        cells = [["-"] * len(columns) for _ in rows]
        for (row, column), each in zip(places, values, strict=True):
            if each:
                means[row, column] = np.mean(each)
                cells[row][column] = with_deviation(metric, each)
        limits = (0.0, 1.0) if metric.endswith("accuracy") else None
        picture = HeatMap(means, y_names=rows, x_names=columns, limits=limits)
        path.write_bytes(drawn(picture).content)
        lines = [[name, *line] for name, line in zip(rows, cells, strict=True)]
        by = " and ".join(map(code, self.told))
        return [
            f"### {code(metric)} by {by}",
            table(["", *columns], lines, {*columns}),
            f"![{metric}]({path.name})",
        ]

    def _found(self, folder: Path) -> list[str]:
        """Pictures of the curves that evaluations found, a panel for each column of the grid."""
        found = [[each.curves() for each in group.repetitions] for group in self.groups]
        parts: list[str] = []
        for number, name in enumerate(dict.fromkeys(n for g in found for c in g for n in c), 1):
            of_groups = [[each[name] for each in group if name in each] for group in found]
            first = next(each for group in of_groups for each in group)
            points = [[each.points for each in group] for group in of_groups]
            panels = {"": dict(zip(self.labels, points, strict=True))}
            if self.grid is not None:
                rows, columns, places = self.grid
                panels = {column: {row: [] for row in rows} for column in columns}
                for (row, column), each in zip(places, points, strict=True):
                    panels[columns[column]][rows[row]] = each
            path = folder / f"found-{number}.png"
            plot_panels(panels, first.x_label, first.y_label, path)
            parts += [f"### {code(name)}", f"![{name}]({path.name})"]
        if not parts:
            return []
        return ["## Found at the last evaluation", *parts]

    def _curves(self, folder: Path) -> list[str]:
        name = "curves.png"
        records = {
            label: [each.lines for each in group.repetitions]
            for label, group in zip(self.labels, self.groups, strict=True)
        }
        plot_learning_curves(records, ["train/loss", *self.plotted], folder / name)
        return [
            "## Learning curves",
            f"![learning curves]({name})",
            "*Lines are means over the trainings of a group that have not ended, bands "
            "reach from the least to the greatest; of many points, the running mean.*",
        ]

    def _inside(self, folder: Path) -> list[str]:
        parts: list[str] = []
        left_out: dict[str, list[str]] = {}
        for number, (label, group) in enumerate(zip(self.labels, self.groups, strict=True), 1):
            first = group.repetitions[0]
            if issubclass(first.task, Analysis):
                # What it looks at is drawn if its run is in the report.
                continue
            try:
                found = draw_inside(first, f"inside-{number}", folder)
            except (ValueError, OSError, CacheError) as error:
                left_out.setdefault(" ".join(str(error).split()), []).append(label)
                continue
            cut = [f"the first {MOST_STEPS} of {found.steps} steps"] * (found.steps > MOST_STEPS)
            widest = max(found.widths)
            cut += [f"the first {MOST_UNITS} of {widest} units"] * (widest > MOST_UNITS)
            drawn = f"; {' and '.join(cut)}" if cut else ""
            parts += [
                f"### {label}",
                f"*{first.name}, weights of update {found.update}, on the first example of the "
                f"split {first.task.selects_on}{drawn}.*",
            ]
            for layer, picture in enumerate(found.pictures, 1):
                parts += [f"Layer {layer}", f"![layer {layer} of {label}]({picture.name})"]
        parts += [f"Left out: {'; '.join(of)}: {why}." for why, of in left_out.items()]
        return ["## Inside the models", *parts] if parts else []

    def _trainings(self) -> str:
        header = ["group", "training", "seed", "seed of the order", "updates", "evaluation after"]
        header.append("objective")
        rows = []
        for label, group, lines in zip(self.labels, self.groups, self.lines, strict=True):
            for each, line in zip(group.repetitions, lines, strict=True):
                numbers = [each.seed, each.config.train.order_seed, each.updates, line["step"]]
                objective = objective_of(each.task)
                shown = f"{code(objective)} {with_deviation(objective, [line[objective]])}"
                rows.append([label, code(each.name), *map(str, numbers), shown])
        return table(header, rows, {*header[2:]})


def _label(options: Mapping[str, Any], names: Sequence[str]) -> str:
    """The values of some options in words."""
    return ", ".join(
        _shown(options[name]) if name in _SPEAKING else f"{name} {_shown(options[name])}"
        for name in names
        if name in options
    )


def _shown(value: Any) -> str:
    """The value of an option as it is shown."""
    return "-" if value is None else str(value)


def _without(options: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {other: value for other, value in options.items() if other != name}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _best(task: type[Task]) -> str:
    """The evaluation that a task selects, in words."""
    order = "highest" if task.higher_is_better else "lowest"
    return f"that with the {order} {code(objective_of(task))}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _n_parameters(training: Repetition) -> int | None:
    """Number of parameters of a training, if it is on record."""
    checkpoints = Checkpoints(training.run.checkpoints, read_only=True)
    try:
        found = checkpoints.n_parameters("best")
    except (OSError, ValueError, KeyError):
        # Another process has just replaced it.
        found = None
    finally:
        checkpoints.close()
    return None if found is None else found // training.lanes


def _state_size(training: Repetition) -> int | None:
    """Real numbers of the state of a training, if they are on record."""
    file = training.run.summary_file
    return json.loads(file.read_text()).get("state_size") if file.is_file() else None
