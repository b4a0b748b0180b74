"""Print a script that lets bash or zsh complete the words of `lru`."""

import argparse
import typing
from collections.abc import Sequence

import shtab

from lru.commands import verbs
from lru.config import CHOICES
from lru.dataloaders import DATASETS
from lru.flags import all_options
from lru.options import Option, first_line
from lru.origins import recipe_names
from lru.version import __version__

PLACES = {
    **dict.fromkeys(("run", "runs", "restore", "runs_dir", "raw_dir"), shtab.DIRECTORY),
    **dict.fromkeys(("cache_dir", "dir_name", "out", "mirror"), shtab.DIRECTORY),
    **dict.fromkeys(("file", "plugins"), shtab.FILE),
}
"""Arguments that take a folder or a file."""


def parser() -> argparse.ArgumentParser:
    """Command line of the verb."""
    parser = argparse.ArgumentParser(prog="lru completion", description=__doc__)
    parser.add_argument("shell", choices=("bash", "zsh"), help="the shell that is to complete")
    return parser


def run(arguments: Sequence[str]) -> int:
    """Run the verb."""
    print(shtab.complete(_whole(), parser().parse_args(arguments).shell))
    return 0


def _whole() -> argparse.ArgumentParser:
    """All verbs and their flags as one parser."""
    whole = argparse.ArgumentParser(prog="lru")
    whole.add_argument("--version", action="version", version=__version__)
    found = whole.add_subparsers(metavar="VERB")
    for name, module in verbs().items():
        made = _train() if name == "train" else module.parser()
        found.add_parser(name, help=first_line(module), parents=[made], add_help=False)
    _add_words(whole)
    return whole


def _train() -> argparse.ArgumentParser:
    """The flags of all that can be chosen; `lru.flags` reads them by a parser of what is chosen."""
    parser = argparse.ArgumentParser(prog="lru train")
    for name, option in all_options().items():
        sentence = option.sentence.replace("%", "%%")
        parser.add_argument(f"--{name}", choices=_values(name, option), help=sentence)
    return parser


def _values(name: str, option: Option) -> list[str] | None:
    """The words that a flag can take, if they can be listed."""
    named = {choice.flag: list(choice.registry) for choice in CHOICES}
    named |= {"dataset": list(DATASETS), "recipe": recipe_names()}
    if name in named:
        return named[name]
    kinds = typing.get_args(option.kind) or (option.kind,)
    if bool in kinds:
        return ["True", "False"]
    literals = [kind for kind in (option.kind, *kinds) if typing.get_origin(kind) is typing.Literal]
    return [value for kind in literals for value in typing.get_args(kind)] or None


def _add_words(parser: argparse.ArgumentParser) -> None:
    """Say what takes the name of a data set, a folder or a file, in all verbs."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                _add_words(verb)
        elif action.dest == "names":
            action.choices = list(DATASETS)
        elif action.dest in PLACES:
            action.complete = PLACES[action.dest]  # pyright: ignore[reportAttributeAccessIssue]
