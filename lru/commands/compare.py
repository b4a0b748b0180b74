"""Print runs side by side: the values that differ, and the results, of lanes their means ± s.d."""

import argparse
from collections.abc import Sequence
from typing import Any

from lru.commands import add_plugins, add_runs, plugins_of
from lru.reports.results import repetitions_of
from lru.training.report import format_columns, from_to, with_deviation
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
    trainings = [repetitions_of(found, plugins_of(given, found)) for found in runs]
    values = [each[0].config.result_values() for each in trainings]
    names = list(dict.fromkeys(name for each in values for name in each))
    rows = [
        [name, *(str(each.get(name, "-")) for each in values)]
        for name in names
        if len({str(each.get(name, "-")) for each in values}) > 1
    ]
    results = [[each.evaluation() for each in of_run] for of_run in trainings]
    for name in dict.fromkeys(n for lines in results for line in lines for n in line):
        found = ([line[name] for line in lines if name in line] for lines in results)
        rows.append([name, *(_shown(name, each) for each in found)])
    print(format_columns(["", *(found.path.name for found in runs)], rows))
    return 0


def _shown(name: str, values: Sequence[Any]) -> str:
    """The result of each lane in one cell."""
    if not values:
        return "-"
    return from_to(values) if isinstance(values[0], int) else with_deviation(name, values)
