"""Values that a command line starts from: a recipe, a run, or the defaults."""

import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from lru.config import LAYER, choices_in, chosen, own_fields_of_all, read_values
from lru.dataloaders.options import converted
from lru.models import NETWORKS
from lru.registry import known_names, suggestion
from lru.training.config import RunConfig
from lru.training.runs import Run, find_run
from lru.words import UsageError, typed_values

RECIPES = Path(__file__).parent / "recipes"

Flat = dict[str, Any]
"""Values by flag."""


def recipe_names() -> list[str]:
    """The recipes that there are."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_recipe(name: str) -> Flat:
    """A recipe: its title, source and expected result, and its values by flag (`config`).

    Args:
        name: of a recipe of the package, or the path of a `.yaml` file.

    Raises:
        UsageError: if there is no such recipe, or the file has no values.
    """
    if is_file_name(name):
        path = Path(name)
        if not path.is_file():
            raise UsageError(f"recipe must name a recipe of the package or a file, got {name!r}")
    else:
        path = RECIPES / f"{name}.yaml"
        if not path.is_file():
            raise UsageError(f"unknown recipe {name!r}; {known_names(name, recipe_names())}")
    recipe = yaml.safe_load(path.read_text())
    if not isinstance(recipe, dict) or not isinstance(recipe.get("config"), dict):
        raise UsageError(f"recipe {name!r} must have its values, by flag, under `config`")
    return recipe


def is_file_name(recipe: str) -> bool:
    """True for the path of a recipe, False for the name of one of the package."""
    return recipe.endswith(".yaml")


class Start(NamedTuple):
    """Values that a command starts from.

    Attributes:
        values: by flag, as a file has them.
        origin: what has them, for messages.
        lenient: whether some may be options of nobody.
    """

    values: Flat
    origin: str
    lenient: bool = False


def start_of(words: Sequence[str], otherwise: Start | None = None) -> Start:
    """Values of the recipe, else of the run of this name, else of the one restored, else others.

    Args:
        words: an expanded command line.
        otherwise: values to start from if the words name none; None for the defaults.

    Raises:
        UsageError: if there is no such recipe or no such run to restore.
    """
    given = typed_values(words, "recipe", "restore", "name", "runs_dir", "reset")
    if words.count("--recipe") > 1:
        raise UsageError("recipe must be given once: it has all values to start from")
    if given["recipe"] is not None:
        return Start(load_recipe(given["recipe"])["config"], f"recipe {given['recipe']}")
    if given["name"] is not None and given["reset"] != "True":
        run = Run(Path(given["runs_dir"] or RunConfig.runs_dir) / given["name"])
        # A command that failed before its first checkpoint has no say in the next.
        if run.has_checkpoint and run.config_file.is_file():
            values, lenient = read_values(run.config_file)
            return Start(values, str(run.config_file), lenient)
    if given["restore"] is not None:
        runs_dir = given["runs_dir"] or RunConfig.runs_dir
        try:
            path = find_run(given["restore"], runs_dir).config_file
        except FileNotFoundError as error:
            path = _restored_from(given["restore"], Path(runs_dir), str(error))
            values, lenient = read_values(path)
            return Start(values, str(path), lenient)
        values, lenient = read_values(path)
        return Start(values | {"name": None, "finetune": False}, str(path), lenient)
    return Start({}, "the defaults") if otherwise is None else otherwise


def _restored_from(origin: str, runs_dir: Path, gone: str) -> Path:
    """The configuration of the one run that was restored from a run that is gone.

    Args:
        origin: name or folder of the run that is gone.
        runs_dir: folder of the runs.
        gone: sentence that says so.

    Raises:
        UsageError: if there is none, or more than one.
    """
    found = {}
    for run in sorted(map(Run, runs_dir.glob("*"))):
        if run.has_checkpoint and run.config_file.is_file():
            restore = read_values(run.config_file)[0].get("restore")
            if restore and Path(restore).absolute() == Path(origin).absolute():
                found[run.path.name] = run.config_file
    if not found:
        raise UsageError(f"restore must be the name or the folder of a run: {gone}")
    if len(found) > 1:
        raise UsageError(
            f"restore: {origin} does not exist; these runs were restored from it: "
            f"{', '.join(found)}; --name the one to go on with"
        )
    return next(iter(found.values()))


def as_typed(values: Flat, kinds: Mapping[str, Any], origin: str) -> Flat:
    """Values of a file, read as they would be if they were typed as flags.

    Args:
        values: by flag.
        kinds: types of all flags.
        origin: what has the values, for messages.

    Raises:
        UsageError: if there is no such flag.
        ValueError: if a value is not of the type of its flag.
    """
    unknown = sorted(values.keys() - kinds.keys())
    if unknown:
        raise UsageError(
            f"{origin} has values that no flag has: {', '.join(unknown)}"
            f"{suggestion(unknown[0], kinds)}"
        )
    checked = {}
    for name, value in values.items():
        if name == "data_options":
            checked[name] = tuple(f"{option}={text}" for option, text in value.items())
        elif typing.get_origin(kinds[name]) is tuple:
            checked[name] = tuple(value)
        else:
            checked[name] = converted(f"{origin}: {name}", value, kinds[name])
    return checked


def settled(base: Flat, picks: Flat) -> tuple[Flat, dict[str, str]]:
    """The base without options of classes that others take the place of, and what is chosen.

    Args:
        base: values to start from.
        picks: names of classes and data set on the command line.
    """
    before = chosen(base)
    if picks.get("dataset", base.get("dataset")) != base.get("dataset"):
        base = {name: v for name, v in base.items() if name not in ("data_options", "task")}
    if (picks.get("model", before["model"]) in NETWORKS) != (before["model"] in NETWORKS):
        base = {name: v for name, v in base.items() if name != "task"}
    names = chosen(base | picks)
    left = own_fields_of_all(before["model"]).keys() - own_fields_of_all(names["model"]).keys()
    for choice in choices_in(before):
        if names.get(choice.flag) != before[choice.flag]:
            own = choice.of(before[choice.flag]).keys()
            if choice is not LAYER and choice.flag in names:
                # Options of layers are tuned to the recurrence, those of others mean the same.
                own = own - choice.of(names[choice.flag]).keys()
            left = left | own
    return {name: value for name, value in base.items() if name not in left}, names
