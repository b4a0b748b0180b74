"""Prepare, verify, describe and show data sets."""

from collections.abc import Sequence

from lru.dataloaders.__main__ import main


def run(arguments: Sequence[str]) -> int:
    """Run the verb."""
    main(arguments)
    return 0
