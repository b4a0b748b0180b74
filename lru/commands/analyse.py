"""Train an analysis of a run: an intervention on its states, or a probe of them."""

import argparse
from collections.abc import Sequence

from lru.analysis.methods import Analysis
from lru.analysis_runs import analysis_values, check_analysis
from lru.commands.train import carry_out
from lru.config import Config
from lru.experiment import load_plugins_of
from lru.flags import CommandConfig, parse
from lru.options import first_line, of_dataclass
from lru.origins import Start
from lru.tasks import TASKS
from lru.training.runs import find_run
from lru.words import typed_values


def parser() -> argparse.ArgumentParser:
    """Command line of the verb."""
    methods = {n: task for n, task in TASKS.items() if issubclass(task, Analysis)}
    width = max(map(len, methods))
    lines = []
    for name, task in methods.items():
        lines.append(f"  {name:{width}}  {first_line(task)}")
        for flag, option in of_dataclass(task.Options).items():
            lines.append(f"  {'':{width}}    --{flag}: {option.sentence}")
    parser = argparse.ArgumentParser(
        prog="lru analyse",
        description=f"{__doc__}\nIt takes the flags of training, too: "
        "lru analyse RUN --method NAME --help_all prints them.",
        epilog="\n".join(["methods, and flags of their own:", *lines]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="RUN", help="name of a run, or its folder")
    parser.add_argument("--method", metavar="NAME", required=True, help="name of the analysis")
    parser.add_argument(
        "--steps", metavar="N", type=int, help="number of updates; default: that of the method"
    )
    return parser


def run(arguments: Sequence[str]) -> int:
    """Run the verb."""
    return carry_out(*_parsed(arguments))


def configuration(arguments: Sequence[str]) -> Config:
    """The configuration of the analysis that a command line asks for."""
    return _parsed(arguments)[1]


def _parsed(arguments: Sequence[str]) -> tuple[CommandConfig, Config]:
    given, rest = parser().parse_known_args(arguments)
    found = find_run(given.run)
    load_plugins_of(found, typed_values(rest, "plugins")["plugins"])
    start = Start(analysis_values(found, given.method), f"the run in {found.path}")
    # These count in an analysis that is resumed, too.
    words = ["--task", given.method, "--runs_dir", str(start.values["runs_dir"])]
    words += [] if given.steps is None else ["--max_steps", str(given.steps)]
    command, config = parse([*words, *rest], start, "lru analyse")
    check_analysis(config, found, given.method)
    return command, config
