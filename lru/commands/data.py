"""List, download, prepare, verify, describe and show data sets."""

import argparse
from collections.abc import Sequence

from lru.dataloaders import __main__ as data


def parser() -> argparse.ArgumentParser:
    """Command line of the verb."""
    return data.command_line("lru data")


def run(arguments: Sequence[str]) -> int:
    """Run the verb."""
    data.run(parser().parse_args(arguments))
    return 0
