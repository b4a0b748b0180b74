"""Write the model of a run: as StableHLO, to be called without its code, or its weights."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from lru.commands import add_run, plugins_of
from lru.experiment import save_weights
from lru.export.runs import export_run
from lru.files import make_folder
from lru.training.report import format_table
from lru.training.runs import find_run


def parser() -> argparse.ArgumentParser:
    """Command line of the verb."""
    parser = argparse.ArgumentParser(prog="lru export", description=__doc__)
    add_run(parser)
    parser.add_argument(
        "--out", metavar="DIR", help="where to; export/ in the run's folder if not given"
    )
    parser.add_argument(
        "--weights", action="store_true", help="write model.safetensors, with the configuration"
    )
    return parser


def run(arguments: Sequence[str]) -> int:
    """Run the verb."""
    given = parser().parse_args(arguments)
    found = find_run(given.run)
    folder = Path(given.out) if given.out else found.path / "export"
    if given.weights:
        make_folder(folder, "out")
        file = folder / "model.safetensors"
        update = save_weights(found, file, given.lane, plugins_of(given, found))
        print(format_table({file.name: f"update {update}, {file.stat().st_size:,} bytes"}))
        print(f"  {file}")
        return 0
    card = export_run(found, folder, given.lane, plugins_of(given, found))
    rows = {name: f"{(folder / name).stat().st_size:,} bytes" for name in card["sha256"]}
    rows["platforms"] = ", ".join(card["platforms"])
    if "no_step" in card:
        rows["no step"] = card["no_step"]
    print(format_table(rows))
    print(f"  {folder}")
    return 0
