"""Flags of the command line, made from the configuration's dataclasses and the layers' options."""

import dataclasses
import inspect
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Annotated, Any

import docstring_parser
import tyro
import yaml

from lru.dataloading import DataConfig
from lru.layers import LAYERS, layer_options
from lru.models import ModelConfig
from lru.training.config import Config, RunConfig, TrainConfig

RECIPES = Path(__file__).parent.parent / "recipes"

Flat = dict[str, Any]

BOOLEANS = {
    "true": "True",
    "yes": "True",
    "1": "True",
    "false": "False",
    "no": "False",
    "0": "False",
}


class UsageError(ValueError):
    """A command line that cannot be understood."""


@dataclass(frozen=True)
class CommandConfig:
    """Where the values come from."""

    recipe: str | None = None
    """Start from the values of this recipe; other flags override them."""
    list: bool = False
    """Print the models, data sets and recipes, and stop."""


def _recurrence_group() -> type:
    """One optional flag for every option that some layer has."""
    owners: dict[str, dict[str, inspect.Parameter]] = {}
    sentences: dict[str, str] = {}
    for model, layer in LAYERS.items():
        documented = docstring_parser.parse(inspect.getdoc(layer.__init__) or "").params
        sentences |= {p.arg_name: p.description or "" for p in reversed(documented)}
        for name, parameter in layer_options(layer).items():
            owners.setdefault(name, {})[model] = parameter
    fields = []
    for name, parameters in owners.items():
        defaults = "; ".join(f"{model}: {p.default}" for model, p in parameters.items())
        kind = next(iter(parameters.values())).annotation
        help_ = f"{sentences[name]} ({defaults})"
        flag = Annotated[kind | None, tyro.conf.arg(help=help_)]
        fields.append((name, flag, field(default=None)))
    group = make_dataclass("RecurrenceConfig", fields, frozen=True)
    group.__doc__ = "Options of the recurrent layer; unset ones keep the layer's defaults."
    return group


def _cli_copy(group: type, replaced: Mapping[str, Any]) -> type:
    """A group without its checks and with other types: tyro fills it, `Config` checks it."""
    docs = {p.arg_name: p.description for p in docstring_parser.parse_from_object(group).params}
    fields = [
        (
            part.name,
            Annotated[replaced.get(part.name, part.type), tyro.conf.arg(help=docs[part.name])],
            field(default=() if part.name in replaced else part.default),
        )
        for part in dataclasses.fields(group)
        if part.name != "options"
    ]
    copy = make_dataclass(group.__name__, fields, frozen=True)
    copy.__doc__ = group.__doc__
    return copy


def _groups() -> dict[str, type]:
    return {
        "command": CommandConfig,
        "model": _cli_copy(ModelConfig, {}),
        "recurrence": _recurrence_group(),
        "data": _cli_copy(DataConfig, {"data_options": tuple[str, ...]}),
        "train": _cli_copy(TrainConfig, {}),
        "run": _cli_copy(RunConfig, {}),
    }


def recipe_names() -> list[str]:
    """The recipes that there are."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_recipe(name: str) -> Flat:
    """A recipe: `title`, `source`, `expected`, and `config` by the names of the flags.

    Raises:
        UsageError: if there is no such recipe.
    """
    path = RECIPES / f"{name}.yaml"
    if not path.is_file():
        raise UsageError(f"unknown recipe {name!r}; known: {', '.join(recipe_names())}")
    return yaml.safe_load(path.read_text())


def expand(arguments: Sequence[str], flags: Mapping[str, bool]) -> list[str]:
    """Write unambiguous prefixes of flags out, and give bare boolean flags the value True.

    Args:
        arguments: as typed.
        flags: whether each flag is a boolean, by name.

    Raises:
        UsageError: if a prefix fits several flags.
    """
    out: list[str] = []
    boolean_before = False
    for i, argument in enumerate(arguments):
        if not argument.startswith("--"):
            out.append(_boolean(argument) if boolean_before else argument)
            boolean_before = False
            continue
        typed, equals, value = argument.partition("=")
        name = _complete(typed.removeprefix("--").replace("-", "_"), flags)
        boolean_before = flags.get(name, False)
        out.append(f"--{name}")
        following = arguments[i + 1] if i + 1 < len(arguments) else ""
        if equals:
            out.append(_boolean(value) if boolean_before else value)
            boolean_before = False
        elif boolean_before and following.lower() not in BOOLEANS:
            out.append("True")
            boolean_before = False
    return out


def _is_boolean(annotation: Any) -> bool:
    kind = typing.get_args(annotation)[0] if typing.get_args(annotation) else annotation
    return bool in (kind, *typing.get_args(kind))


def _boolean(word: str) -> str:
    return BOOLEANS.get(word.lower(), word)


def _complete(typed: str, flags: Iterable[str]) -> str:
    """The flag that `typed` is or abbreviates; itself if there is none: the parser refuses it."""
    fitting = [flag for flag in flags if flag.startswith(typed)]
    if typed in fitting or not fitting:
        return typed
    if len(fitting) > 1:
        raise UsageError(f"--{typed} is short for several flags: {', '.join(sorted(fitting))}")
    return fitting[0]


def _parse_options(items: Sequence[str]) -> dict[str, str]:
    pairs = [item.partition("=") for item in items]
    for item, (name, equals, _) in zip(items, pairs, strict=True):
        if not (name and equals):
            raise UsageError(f"data_options takes NAME=VALUE, got {item!r}")
    return {name: value for name, _, value in pairs}


def _cli_type(groups: Mapping[str, type], base: Flat) -> type:
    """The groups as one type for tyro, with `base` in place of their defaults."""
    fields = []
    for name, group in groups.items():
        names = [part.name for part in dataclasses.fields(group)]
        start = group(**{key: base[key] for key in names if key in base})
        fields.append((name, group, field(default_factory=lambda start=start: start)))
    return make_dataclass("Flags", fields, frozen=True)


def parse(arguments: Sequence[str]) -> tuple[CommandConfig, Config]:
    """Read a command line.

    The values start from a recipe, else from the run that `--restore` or an existing `--name`
    names, else from the defaults.

    Raises:
        UsageError: if the command line cannot be understood.
        ValueError: if a value is out of range.
        SystemExit: by the parser, after `--help` or an unknown flag.
    """
    groups = _groups()
    parts = [part for group in groups.values() for part in dataclasses.fields(group)]
    typed = expand(arguments, {part.name: _is_boolean(part.type) for part in parts})

    def read(base: Flat) -> Any:
        return tyro.cli(
            _cli_type(groups, base),
            args=typed,
            prog="run_train.py",
            description="Train, resume or evaluate a recurrent sequence model.",
            config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagConversionOff),
            use_underscores=True,
        )

    def chosen(args: Any) -> Flat:
        values = {}
        for name in ("model", "recurrence", "data", "train", "run"):
            values |= dataclasses.asdict(getattr(args, name))
        return values

    first = read({})
    base = _base(first.command, first.run)
    if "data_options" in base:
        base["data_options"] = tuple(f"{k}={v}" for k, v in base["data_options"].items())
    args = read(base)
    options = {part.name for part in dataclasses.fields(groups["recurrence"])}
    if args.model.model != base.get("model", args.model.model):
        # Options of one recurrence mean nothing to another.
        args = read({name: value for name, value in base.items() if name not in options})
    values = chosen(args)
    values["data_options"] = _parse_options(values["data_options"])
    given = {k: v for k, v in values.items() if v is not None or k not in options}
    return args.command, Config.from_flat(given)


def _base(command: CommandConfig, run: Any) -> Flat:
    if command.recipe is not None:
        return load_recipe(command.recipe)["config"]
    if run.restore is not None:
        path = Path(run.restore) / "config.yaml"
        if not path.is_file():
            raise UsageError(f"restore must be the folder of a run, but {path} does not exist")
        return Config.load(path).flat() | {"name": None}
    if run.name is not None and not run.reset:
        path = Path(run.runs_dir) / run.name / "config.yaml"
        if path.is_file():
            return Config.load(path).flat()
    return {}
