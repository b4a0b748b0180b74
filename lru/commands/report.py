"""Write a report on runs: tables, plots, and one page that holds both."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from lru.commands import add_plugins, add_runs, plugins_of
from lru.reports import grouped, repetitions_of, write_report
from lru.reports.folder import default_folder
from lru.training.runs import find_runs


def parser() -> argparse.ArgumentParser:
    """Command line of the verb."""
    parser = argparse.ArgumentParser(prog="lru report", description=__doc__)
    add_runs(parser)
    parser.add_argument(
        "--out", type=Path, help="folder to write; default: reports/ and the names of the runs"
    )
    parser.add_argument(
        "--metric",
        nargs="+",
        default=[],
        metavar="SPLIT/METRIC",
        help="metrics to show; default: all in the table, and plots of what selects",
    )
    parser.add_argument(
        "--by",
        metavar="OPTION",
        help="numeric option to plot results against; default: the one with most values",
    )
    parser.add_argument(
        "--last",
        action="store_true",
        help="show the last evaluation of each training, not the one that its task selects",
    )
    add_plugins(parser)
    return parser


def run(arguments: Sequence[str]) -> int:
    """Run the verb."""
    given = parser().parse_args(arguments)
    runs = {found.path.resolve(): found for name in given.runs for found in find_runs(name)}
    repetitions = [
        each for found in runs.values() for each in repetitions_of(found, plugins_of(given, found))
    ]
    groups, left_out = grouped(repetitions)
    names = dict.fromkeys(Path(name).resolve().name for name in given.runs)
    folder = given.out or default_folder(list(names))
    write_report(
        groups,
        folder,
        left_out=[f"Left out: {sentence}" for sentence in left_out],
        metrics=given.metric,
        by=given.by,
        last=given.last,
    )
    print(f"  {folder}")
    return 0
