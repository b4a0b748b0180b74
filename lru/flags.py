"""Flags of `lru train`: those of the groups of the configuration, and of the classes chosen."""

import dataclasses
import logging
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, make_dataclass
from typing import Annotated, Any, Literal

import tyro

from lru.batches import DataConfig
from lru.config import (
    CHOICES,
    GROUPS,
    LAYER,
    WITHOUT_EFFECT,
    Choice,
    Config,
    choices_in,
    choices_of,
    declared_defaults,
    fields_for,
    options_of,
    own_fields_of_all,
    refuse,
)
from lru.dataloaders import DATASETS, dataset_from_options
from lru.defaults import with_memory
from lru.matching import matched
from lru.options import Option, of_dataclass
from lru.origins import Flat, Start, as_typed, is_file_name, settled, start_of
from lru.plugins import load_plugins, load_saved_plugins
from lru.run_folders import run_path
from lru.training.runs import Run
from lru.words import UsageError, expand, is_true, plugins_as_one, spans, typed_values

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CommandConfig:
    """Recipes and listings."""

    recipe: str | None = None
    """Start from the values of this recipe, or .yaml file; other flags override them."""
    resume: bool = False
    """Resume, and refuse to start a new run; an existing run is resumed without it, too."""
    list: bool = False
    """Print the models, bodies, tasks, data sets, optimisers and recipes, and stop."""
    help_all: bool = False
    """Print the flags of all models, bodies, tasks and optimisers, and stop."""
    trust_plugins: bool = False
    """Load the plugins that the run's config.yaml names, which are else to be named by plugins."""
    launcher: Literal["local", "slurm"] = "local"
    """Train here, or submit a job to SLURM, which starts again until the run is done."""
    slurm: str | None = None
    """Settings of that job, NAME=VALUE,NAME=VALUE: partition, time (in minutes), mem,
    cpus_per_task, gpus_per_node and others of sbatch."""
    memory: str | None = None
    """Draw the recurrence so that it remembers so many steps; auto: those of the data. Sets options
    of the model, but those that are given here."""
    match_params: int | None = None
    """Choose d_hidden so that the number of parameters is nearest to this one, or d_model where
    d_hidden changes nothing."""
    protocol: Literal["standard", "lra"] | None = None
    """For data sets published without a validation split: lra validates on the test split."""


def parse(
    arguments: Sequence[str], otherwise: Start | None = None, program: str = "lru train"
) -> tuple[CommandConfig, Config]:
    """Read a command line.

    The values start from a recipe, else from the run of this `--name` if it has a checkpoint, else
    from the run that `--restore` names, else from `otherwise` or the defaults. Plugins that are
    named on the command line are loaded, or, with `--trust_plugins`, those that are named there.

    Args:
        arguments: the words.
        otherwise: values to start from if the words name none.
        program: to call in messages.

    Raises:
        UsageError: if the command line cannot be understood, or there is nothing to resume.
        ValueError: if a value is out of range, or plugins are named there and may not be loaded.
        Exception: if data cannot be prepared whose length `--memory auto` asks for.
        SystemExit: by the parser, after `--help` or an unknown flag.
    """
    words = written_out(arguments)
    everything = all_options()
    plugins = typed_values(words, "plugins")["plugins"]
    if load_plugins(plugins):
        return parse(arguments, otherwise, program)
    base, origin, lenient = start_of(words, otherwise)
    recipe = typed_values(words, "recipe")["recipe"]
    of_package = recipe is not None and not is_file_name(recipe)
    trust = is_true(words, "trust_plugins") or of_package
    if plugins is None and load_saved_plugins(base.get("plugins"), origin, trust):
        return parse(arguments, otherwise, program)
    commands = of_dataclass(CommandConfig)
    kinds = {name: o.kind for name, o in everything.items() if name not in commands}
    base = as_typed(base, kinds, origin)
    picks = typed_values(words, "dataset", *(choice.flag for choice in CHOICES))
    base, names = settled(base, {name: value for name, value in picks.items() if value is not None})
    of_classes = options_of(names)
    applying = {**own_fields_of_all(names["model"]), **of_classes}
    known = applying.keys() | commands.keys()
    for name in [name for name in base if name not in known]:
        refuse(name, names, lenient=lenient)
        del base[name]
    names = {**names, "dataset": picks["dataset"] or base.get("dataset", DataConfig.dataset)}
    words = _with_effect(words, known, everything, names)
    defaults = {name: option.default for name, option in applying.items()}
    defaults |= declared_defaults(names["model"], names["task"]) | base
    help_all = is_true(words, "help_all")
    groups = _groups(names, help_all=help_all)
    args: Any = tyro.cli(
        _cli_type(groups, defaults | {c.flag: names[c.flag] for c in choices_in(names)}),
        args=["--help"] if help_all else words,
        prog=program,
        description="Train, resume or evaluate a recurrent sequence model.",
        config=(
            tyro.conf.OmitArgPrefixes,
            tyro.conf.FlagConversionOff,
            # Sentences come with the options; tyro would search source files for them as well.
            tyro.conf.HelptextFromCommentsOff,
        ),
        use_underscores=True,
    )
    values: Flat = {}
    for name in groups:
        if name != "command" and name not in _OTHERS:
            values |= vars(getattr(args, name))
    values |= {
        n: o.default for n, o in of_classes.items() if values[n] is None and not o.takes_none
    }
    given = (*base.get("data_options", ()), *values["data_options"])
    if args.command.protocol is not None:
        given = (*given, f"protocol={args.command.protocol}")
    values["data_options"] = _parse_options(given)
    config = Config.from_flat(values)
    if args.command.memory is not None and not args.command.list:
        typed = {words[start].removeprefix("--") for start, _ in spans(words)}
        config = with_memory(config, args.command.memory, typed)
    if args.command.match_params is not None and not args.command.list:
        config = _matched(config, args.command.match_params, words)
    if args.command.resume:
        _check_resumes(config)
    return args.command, config


def written_out(arguments: Sequence[str]) -> list[str]:
    """The words of a command line with whole names; plugins that are named there are loaded.

    Args:
        arguments: the words.

    Raises:
        UsageError: if a prefix fits several flags.
    """
    load_plugins(typed_values(plugins_as_one(arguments), "plugins")["plugins"])
    booleans = {name: _is_boolean(option.kind) for name, option in all_options().items()}
    # Of the parser itself: no prefix of help_all.
    return expand(arguments, {"help": False, **booleans})


def _matched(config: Config, n_parameters: int, words: Sequence[str]) -> Config:
    """The configuration with the width of a number of parameters.

    Raises:
        UsageError: if that width is typed as well.
    """
    config, width = matched(config, n_parameters)
    if typed_values(words, width)[width] is not None:
        raise UsageError(f"match_params chooses {width}: leave out --{width}")
    return config


def _check_resumes(config: Config) -> None:
    """Refuse to start a new run.

    Raises:
        UsageError: if there is nothing to resume.
    """
    if config.run.reset:
        raise UsageError("resume and reset exclude each other: reset starts the run over")
    path = run_path(config)
    if not Run(path).has_checkpoint:
        raise UsageError(
            f"resume: there is no checkpoint in {path}; give the --name and --runs_dir of a run "
            "that has one, or start a new run without --resume"
        )


def all_options() -> dict[str, Option]:
    """Every option that there is, of the command, the groups and all classes, by flag."""
    options = {**of_dataclass(CommandConfig), **own_fields_of_all()}
    for choice in CHOICES:
        for entry in choice.registry:
            options = {**choice.of(entry), **options}
    return options


def _is_boolean(kind: Any) -> bool:
    return bool in (kind, *typing.get_args(kind))


def _with_effect(
    words: list[str],
    known: Iterable[str],
    everything: Mapping[str, Option],
    names: Mapping[str, str],
) -> list[str]:
    """The words without flags that nobody chosen has a use for.

    Raises:
        ValueError: if there is such a flag, and published commands do not carry it.
    """
    out: list[str] = []
    for start, end in spans(words):
        name = words[start].removeprefix("--")
        if words[start].startswith("--") and name in everything and name not in known:
            if name not in WITHOUT_EFFECT:
                refuse(name, names)
            logger.warning(
                "--%s has no effect here: it is not an option of task %s", name, names["task"]
            )
            continue
        out += words[start:end]
    return out


_OTHERS = {f"other_{choice.group}" for choice in CHOICES}


def _groups(names: Mapping[str, str], *, help_all: bool) -> dict[str, type]:
    """The groups of flags, as types for tyro to fill; `Config` checks them."""
    groups: dict[str, type] = {"command": CommandConfig}
    seen: dict[str, Option] = {}
    for group, kind in GROUPS.items():
        fields = fields_for(group, names["model"])
        if group == "data":
            fields["data_options"] = _data_options(fields["data_options"], names["dataset"])
        groups[group] = _as_type(group.capitalize(), _new(fields, seen, names), kind.__doc__)
        for choice in choices_of(group):
            if choice.flag not in names:
                continue
            name = names[choice.flag]
            title = f"Options of {choice.flag} {name}."
            options = _new(choice.of(name), seen, names)
            if choice is LAYER:
                # Published commands give None for the layer's own default.
                options = {n: o._replace(kind=o.kind | None) for n, o in options.items()}
            groups[_field(name, groups)] = _as_type(
                f"{choice.group.capitalize()}Options", options, title
            )
    if help_all:
        for choice in CHOICES:
            others = _others(choice, seen)
            title = f"Options of other {choice.plural}."
            groups[f"other_{choice.group}"] = _as_type(
                f"Other{choice.group.capitalize()}Options", others, title
            )
    return groups


def _field(name: str, taken: Iterable[str]) -> str:
    """A field for the options of a class, under whose name the help lists them."""
    field_name = name.replace("-", "_")
    return f"{field_name}_" if field_name in {*taken, *GROUPS} else field_name


def _others(choice: Choice, seen: dict[str, Option]) -> dict[str, Option]:
    """The options of all classes of a kind that are not seen yet, with their owners."""
    found: dict[str, Option] = {}
    for entry in choice.registry:
        for name, option in choice.of(entry).items():
            if name not in seen:
                owners = [e for e in choice.registry if name in choice.of(e)]
                sentence = f"{option.sentence} (of {', '.join(owners)})"
                found[name] = Option(option.kind | None, None, sentence)
    seen |= found
    return found


def _new(
    options: Mapping[str, Option], seen: dict[str, Option], names: Mapping[str, str]
) -> dict[str, Option]:
    """Those options that no group before has.

    Raises:
        UsageError: if two of the chosen classes mean something else by one name.
    """
    for name in options.keys() & seen.keys():
        if options[name].kind != seen[name].kind:
            raise UsageError(
                f"{name} is an option of two of {', '.join(names.values())}, with types that "
                f"differ: {seen[name].kind} and {options[name].kind}"
            )
    new = {name: option for name, option in options.items() if name not in seen}
    seen |= new
    return new


def _data_options(option: Option, dataset: str) -> Option:
    """The flag, with the options of the data set in its sentence."""
    options = of_dataclass(DATASETS[dataset]) if dataset in DATASETS else {}
    # Of a variant they differ from those of the class.
    defaults = vars(dataset_from_options(dataset)) if options else {}
    listed = "; ".join(f"{name}={defaults[name]}: {o.sentence}" for name, o in options.items())
    return Option(tuple[str, ...], (), f"{option.sentence} Those of {dataset}: {listed or 'none'}")


def _as_type(title: str, options: Mapping[str, Option], doc: str | None) -> type:
    fields = [
        (
            name,
            Annotated[option.kind, tyro.conf.arg(help=option.sentence)],
            field(default_factory=lambda value=option.default: value),
        )
        for name, option in options.items()
    ]
    kind = make_dataclass(f"{title}Flags", fields, frozen=True)
    kind.__doc__ = doc
    return kind


def _cli_type(groups: Mapping[str, type], base: Flat) -> type:
    """The groups as one type for tyro, with `base` in place of their defaults."""
    fields = []
    for name, group in groups.items():
        names = [part.name for part in dataclasses.fields(group) if part.name != "data_options"]
        start = group(**{key: base[key] for key in names if key in base})
        fields.append((name, group, field(default_factory=lambda start=start: start)))
    return make_dataclass("Flags", fields, frozen=True)


def _parse_options(items: Sequence[str]) -> dict[str, str]:
    pairs = [item.partition("=") for item in items]
    for item, (name, equals, _) in zip(items, pairs, strict=True):
        if not (name and equals):
            raise UsageError(f"data_options takes NAME=VALUE, got {item!r}")
    return {name: value for name, _, value in pairs}
