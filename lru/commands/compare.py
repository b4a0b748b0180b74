"""Print runs side by side: the values that differ, and the results."""

import argparse
from collections.abc import Sequence
from typing import Any

from lru.commands import add_plugins, add_runs, plugins_of
from lru.config import Config
from lru.experiment import load_plugins_of
from lru.reports.results import best_line, lines_of, task_of
from lru.training.report import format_columns, formatted
from lru.training.runs import find_runs


def parser() -> argparse.ArgumentParser:
    """Command line of the verb."""
    parser = argparse.ArgumentParser(prog="lru compare", description=__doc__)
    add_runs(parser)
    add_plugins(parser)
    return parser


def run(arguments: Sequence[str]) -> int:
    """Run the verb."""
    given = parser().parse_args(arguments)
    runs = [found for name in given.runs for found in find_runs(name)]
    for found in runs:
        load_plugins_of(found, plugins_of(given, found))
    configs = [Config.load(found.config_file) for found in runs]
    values = [config.result_values() for config in configs]
    names = list(dict.fromkeys(name for each in values for name in each))
    rows = [
        [name, *(str(each.get(name, "-")) for each in values)]
        for name in names
        if len({str(each.get(name, "-")) for each in values}) > 1
    ]
    results = [
        best_line(lines_of(found), task_of(config))
        for found, config in zip(runs, configs, strict=True)
    ]
    for name in dict.fromkeys(name for result in results for name in result):
        rows.append([name, *(_shown(name, result.get(name)) for result in results)])
    print(format_columns(["", *(found.path.name for found in runs)], rows))
    return 0


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else formatted(name, value)
