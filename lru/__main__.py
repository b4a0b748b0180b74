"""What can be done with runs: `python -m lru VERB --help`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lru.dataloaders.cache import CacheError
from lru.dataloaders.fetch import DownloadError
from lru.export.runs import export_run
from lru.training.report import format_table
from lru.training.runs import find_run


def export(arguments: argparse.Namespace) -> None:
    """Write the model of a run as StableHLO, to be called without its code."""
    run = find_run(arguments.run)
    folder = Path(arguments.out) if arguments.out else run.path / "export"
    card = export_run(run, folder)
    rows = {name: f"{(folder / name).stat().st_size:,} bytes" for name in card["sha256"]}
    rows["platforms"] = ", ".join(card["platforms"])
    if "no_step" in card:
        rows["no step"] = card["no_step"]
    print(format_table(rows))
    print(f"  {folder}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m lru", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    verb = verbs.add_parser("export", help=export.__doc__, description=export.__doc__)
    verb.add_argument("run", metavar="RUN", help="name of a run, or its folder")
    verb.add_argument(
        "--out", metavar="DIR", help="where to; export/ in the run's folder if not given"
    )
    verb.set_defaults(do=export)
    parsed = parser.parse_args(arguments)
    try:
        parsed.do(parsed)
        return 0
    except (ValueError, OSError, CacheError, DownloadError) as error:
        print(f"python -m lru: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
