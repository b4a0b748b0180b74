"""Make a run of a checkpoint of RVQE, the first code of the quantum network."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from lru.interop.rvqe_run import import_checkpoint
from lru.options import of_dataclass
from lru.training.config import RunConfig


def parser() -> argparse.ArgumentParser:
    """Command line of the verb."""
    parser = argparse.ArgumentParser(prog="lru import-rvqe", description=__doc__)
    parser.add_argument("checkpoint", metavar="FILE", help="checkpoint, such as checkpoint-....tar")
    parser.add_argument("--name", help="name of the run; that of the file if not given")
    options = of_dataclass(RunConfig)
    for name in ("runs_dir", "dir_name", "raw_dir"):
        option = options[name]
        parser.add_argument(f"--{name}", default=option.default, help=option.sentence)
    return parser


def run(arguments: Sequence[str]) -> int:
    """Run the verb."""
    given = vars(parser().parse_args(arguments))
    path = Path(given.pop("checkpoint"))
    given["name"] = given["name"] or path.stem
    folder = import_checkpoint(path, RunConfig(**given))
    print(f"update {folder.saved_update} is saved; lru train --name {given['name']} goes on there")
    print(f"  {folder.path}")
    return 0
