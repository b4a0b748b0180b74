"""Evaluate the language model of a run with a continuous cache of what it has read."""

import argparse
from collections.abc import Sequence

from lru.commands import add_run, plugins_of
from lru.models.cache_pointer import CachePointer
from lru.text import with_pointer
from lru.text.loading import load_text
from lru.training.report import format_table, report_rows
from lru.training.runs import find_run


def parser() -> argparse.ArgumentParser:
    """Command line of the verb."""
    parser = argparse.ArgumentParser(
        prog="lru pointer",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add_run(parser)
    parser.add_argument("--window", type=int, default=500, help="tokens in the cache")
    parser.add_argument(
        "--theta", type=float, default=1.0, help="how much the cache prefers like features"
    )
    parser.add_argument("--weight", type=float, default=0.1, help="share of the cache")
    return parser


def run(arguments: Sequence[str]) -> int:
    """Run the verb."""
    given = parser().parse_args(arguments)
    mixture = CachePointer(given.window, given.theta, given.weight)
    found = find_run(given.run)
    loaded = load_text(found, given.lane, plugins_of(given, found))
    metrics = with_pointer(loaded, mixture, "val") | with_pointer(loaded, mixture, "test")
    print(format_table(report_rows([metrics])))
    return 0
