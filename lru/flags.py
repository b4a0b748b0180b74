"""Flags of the command line, made from the configuration's dataclasses and the layers' options."""

import argparse
import dataclasses
import inspect
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import docstring_parser
import tyro
import yaml

from lru.dataloaders.options import converted
from lru.dataloading import DataConfig
from lru.layers import LAYERS, layer_options
from lru.models import ModelConfig
from lru.plugins import load_plugins, load_saved_plugins
from lru.training.config import Config, RunConfig, TrainConfig
from lru.training.runs import Run, has_checkpoint

RECIPES = Path(__file__).parent.parent / "recipes"

Flat = dict[str, Any]

BOOLEANS = {
    "true": "True",
    "t": "True",
    "yes": "True",
    "y": "True",
    "1": "True",
    "false": "False",
    "f": "False",
    "no": "False",
    "n": "False",
    "0": "False",
    "none": "None",
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
    trust_plugins: bool = False
    """Run the plugins that the folder of the run names; else they must be named by plugins."""
    protocol: Literal["standard", "lra"] | None = None
    """Option of data sets without a validation split: lra validates on the test split instead."""


def _recurrence_group() -> type:
    """One optional flag for every option that some layer has."""
    owners: dict[str, dict[str, inspect.Parameter]] = {}
    sentences: dict[str, str] = {}
    for model, layer in LAYERS.items():
        documented = docstring_parser.parse(inspect.getdoc(layer.__init__) or "").params
        sentences |= {p.arg_name: p.description or "" for p in documented}
        for name, parameter in layer_options(layer).items():
            owners.setdefault(name, {})[model] = parameter
    fields = []
    for name, parameters in owners.items():
        defaults = "; ".join(f"{model}: {_short(p.default)}" for model, p in parameters.items())
        kind = next(iter(parameters.values())).annotation
        sentence = sentences[name][0].upper() + sentences[name][1:]
        flag = Annotated[kind | None, tyro.conf.arg(help=f"{sentence} ({defaults})")]
        fields.append((name, flag, field(default=None)))
    group = make_dataclass("RecurrenceConfig", fields, frozen=True)
    group.__doc__ = "Options of the recurrent layer; unset ones keep the layer's defaults."
    return group


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


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


def _kind(annotation: Any) -> Any:
    """The type itself, without what `Annotated` says about it."""
    annotated = typing.get_origin(annotation) is Annotated
    return typing.get_args(annotation)[0] if annotated else annotation


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
    """A recipe: its title, source and expected result, and its values by flag (`config`).

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


def _gathered(arguments: Sequence[str], flag: str) -> list[str]:
    """Put all values of a flag behind one of it: the parser keeps those of the last alone."""
    others: list[str] = []
    values: list[str] = []
    current = others
    for argument in arguments:
        if argument.startswith("--"):
            current = values if argument == flag else others
        if argument != flag:
            current.append(argument)
    return [*others, flag, *values] if flag in arguments else others


def _is_boolean(kind: Any) -> bool:
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


def _checked(values: Flat, kinds: Mapping[str, Any], origin: str) -> Flat:
    """The values of a file, read as they would be if they were typed as flags."""
    unknown = ", ".join(sorted(values.keys() - kinds.keys()))
    if unknown:
        raise UsageError(f"{origin} has values that no flag has: {unknown}")
    checked = {}
    for name, value in values.items():
        if name == "data_options":
            checked[name] = tuple(f"{option}={text}" for option, text in value.items())
        else:
            checked[name] = converted(f"{origin}: {name}", value, kinds[name])
    return checked


def parse(arguments: Sequence[str]) -> tuple[CommandConfig, Config]:
    """Read a command line.

    The values start from a recipe, else from the run of this `--name` if it has a checkpoint, else
    from the run that `--restore` names, else from the defaults. Plugins that are named on the
    command line are loaded, or, with `--trust_plugins`, those that are named there.

    Raises:
        UsageError: if the command line cannot be understood.
        ValueError: if a value is out of range, or plugins are named there and may not be loaded.
        SystemExit: by the parser, after `--help` or an unknown flag.
    """
    load_plugins(_typed_plugins(arguments))
    groups = _groups()
    kinds = {
        name: {part.name: _kind(part.type) for part in dataclasses.fields(group)}
        for name, group in groups.items()
    }
    commands, options = kinds.pop("command"), kinds["recurrence"]
    values_kinds = {name: kind for group in kinds.values() for name, kind in group.items()}
    booleans = {name: _is_boolean(kind) for name, kind in (commands | values_kinds).items()}
    typed = _gathered(expand(arguments, booleans), "--data_options")

    def read(base: Flat) -> Any:
        return tyro.cli(
            _cli_type(groups, base),
            args=typed,
            prog="run_train.py",
            description="Train, resume or evaluate a recurrent sequence model.",
            config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagConversionOff),
            use_underscores=True,
        )

    first = read({})
    base, origin = _base(first.command, first.run)
    if first.run.plugins is not None:
        new_flags = load_plugins(first.run.plugins)
    else:
        trust = first.command.trust_plugins or first.command.recipe is not None
        new_flags = load_saved_plugins(base.get("plugins"), origin, trust)
    if new_flags:
        return parse(arguments)
    base = _checked(base, values_kinds, origin)
    args = read(base)
    kept = _still_meant(base, args.model.model, args.data.dataset, options)
    if kept != base:
        base, args = kept, read(kept)
    values: Flat = {}
    for name in kinds:
        values |= dataclasses.asdict(getattr(args, name))
    options_of_data = (*base.get("data_options", ()), *values["data_options"])
    if args.command.protocol is not None:
        options_of_data = (*options_of_data, f"protocol={args.command.protocol}")
    values["data_options"] = _parse_options(options_of_data)
    given = {k: v for k, v in values.items() if v is not None or k not in options}
    return args.command, Config.from_flat(given)


def _typed_plugins(arguments: Sequence[str]) -> str | None:
    """The plugins on a command line, which may define the other flags on it."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--plugins", nargs="?")
    return parser.parse_known_args(list(arguments))[0].plugins


def _still_meant(base: Flat, model: str, dataset: str, options: Iterable[str]) -> Flat:
    """Drop the options of another recurrence, or of another data set, than the one in use."""
    dropped: set[str] = set()
    if base.get("model", ModelConfig.model) != model:
        dropped.update(options)
    if base.get("dataset", DataConfig.dataset) != dataset:
        dropped.add("data_options")
    return {name: value for name, value in base.items() if name not in dropped}


def _base(command: CommandConfig, run: Any) -> tuple[Flat, str]:
    """The values to start from, and where they come from."""
    if command.recipe is not None:
        return load_recipe(command.recipe)["config"], f"recipe {command.recipe}"
    if run.name is not None and not run.reset:
        path = Path(run.runs_dir) / run.name
        if has_checkpoint(path):
            return Config.load(Run(path).config_file).flat(), str(Run(path).config_file)
    if run.restore is not None:
        path = Run(Path(run.restore)).config_file
        if not path.is_file():
            raise UsageError(
                f"restore must be the folder of a run, but {path} does not exist; a run that has "
                "been restored from there resumes by its --name"
            )
        return Config.load(path).flat() | {"name": None, "finetune": False}, str(path)
    return {}, "the defaults"
