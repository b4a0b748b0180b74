"""The whole configuration of a run: groups by what they concern, each option with its owner.

Nested in Python and on disk; flat, by the names of flags, on a command line and in a recipe.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lru.analysis.methods import Analysis
from lru.batches import DataConfig
from lru.dataloaders import DATASETS
from lru.files import write_atomically
from lru.models import BODIES, MODELS, NETWORKS, ModelConfig, resolve_body
from lru.options import Option, build, of_constructor, of_dataclass
from lru.registry import suggestion
from lru.tasks import TASKS
from lru.training.config import RunConfig, TrainConfig, without_effect
from lru.training.optimizer import OPTIMIZERS, Optimizer
from lru.words import ALIASES

FORMAT = 3
"""Of the file. 1 was flat, with options of all; 2 had those of all bodies among the model's."""

WITHOUT_EFFECT = ("bptt", "eval_batch_size", "pooling")
"""Options that published commands carry for all data sets, also those that have no use for them."""


@dataclass(frozen=True)
class TaskConfig:
    """The task."""

    task: str | None = None
    """Name of the task; unset: that of the data set."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the task by name; those left out keep their defaults."""


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimiser."""

    optimizer: str = "adamw"
    """Rule of the updates."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the rule by name; those left out keep their defaults."""


@dataclass(frozen=True)
class Choice:
    """A place in the configuration that a registered class fills.

    Attributes:
        group: of the options of the class, on disk.
        holder: the part of a configuration that has them.
        field: in which it has them.
        flag: that names the class, and what such a class is called.
        plural: of it.
        registry: the classes by name.
        options: the options of a class.
    """

    group: str
    holder: str
    field: str
    flag: str
    plural: str
    registry: Mapping[str, Any]
    options: Callable[[Any], dict[str, Option]]

    def of(self, name: str) -> dict[str, Option]:
        """The options of the class of this name."""
        return self.options(self.registry[name])

    def values(self, config: "Config") -> dict[str, Any]:
        """The values of the options in a configuration."""
        return dict(getattr(getattr(config, self.holder), self.field))


def _declared(owner: Any) -> dict[str, Option]:
    return of_dataclass(owner.Options)


LAYER = Choice("layer", "model", "options", "model", "models", MODELS, of_constructor)
CHOICES = (
    LAYER,
    Choice("body", "model", "body_options", "body", "bodies", BODIES, _declared),
    Choice("task", "task", "options", "task", "tasks", TASKS, _declared),
    Choice(
        "optimizer", "optimizer", "options", "optimizer", "optimisers", OPTIMIZERS, of_dataclass
    ),
)

GROUPS: dict[str, type] = {
    "model": ModelConfig,
    "data": DataConfig,
    "task": TaskConfig,
    "optimizer": OptimizerConfig,
    "train": TrainConfig,
    "run": RunConfig,
}


def choices_of(group: str) -> list[Choice]:
    """The choices whose options a group holds."""
    return [choice for choice in CHOICES if choice.holder == group]


def own_fields(group: str) -> dict[str, Option]:
    """The fields of a group that do not depend on a choice."""
    of_choices = [choice.field for choice in choices_of(group)]
    return {name: o for name, o in of_dataclass(GROUPS[group]).items() if name not in of_choices}


def fields_for(group: str, model: str) -> dict[str, Option]:
    """The fields of a group that do not depend on a choice and mean something for a model.

    A network of its own is no stack of layers, so it has none of their numbers and widths.
    """
    fields = own_fields(group)
    if group == "model" and model in NETWORKS:
        return {"model": fields["model"]}
    return fields


def chosen(values: Mapping[str, Any]) -> dict[str, str]:
    """The names of the chosen classes by their flags, from flat values; defaults where unset.

    A network of its own has no body.

    Raises:
        UnknownNameError: if there is no such class.
        ValueError: if the body or the task does not suit the model.
    """
    model = MODELS.resolve(values.get("model", ModelConfig.model))
    dataset = values.get("dataset", DataConfig.dataset)
    task = values.get("task")
    if model in NETWORKS:
        task = task or NETWORKS[model].task
        if task != NETWORKS[model].task and not issubclass(TASKS[task], Analysis):
            raise ValueError(
                f"task must be {NETWORKS[model].task} for model {model!r}, got {task!r}"
            )
    if task is None:
        task = DATASETS[dataset].task if dataset in DATASETS else "classification"
    asked = {**declared_defaults(model, task), **values}
    names = {"model": model}
    if model not in NETWORKS:
        names["body"] = resolve_body(asked.get("body", "auto"), model, TASKS[task].preferred_body)
    return {
        **names,
        "task": TASKS.resolve(task),
        "optimizer": OPTIMIZERS.resolve(asked.get("optimizer", OptimizerConfig.optimizer)),
    }


def choices_in(names: Mapping[str, str]) -> list[Choice]:
    """The choices that a configuration with these classes makes."""
    return [choice for choice in CHOICES if choice.flag in names]


def own_fields_of_all(model: str = ModelConfig.model) -> dict[str, Option]:
    """The fields of all groups that do not depend on a choice and mean something for a model."""
    return {n: option for group in GROUPS for n, option in fields_for(group, model).items()}


def options_of(names: Mapping[str, str]) -> dict[str, Option]:
    """The options of the chosen classes, from their names by flag."""
    return {n: o for choice in choices_in(names) for n, o in choice.of(names[choice.flag]).items()}


def declared_defaults(model: str, task: str) -> dict[str, Any]:
    """Defaults that a task and a model declare for options of others; the model wins."""
    return {**TASKS[task].defaults, **MODELS[model].defaults}


def owners_of(name: str) -> list[str]:
    """The classes with an option of this name, as "model 'lru'"."""
    if name in own_fields("model"):
        return ["stacks of recurrent layers"]
    return [
        f"{choice.flag} {entry!r}"
        for choice in CHOICES
        for entry in choice.registry
        if name in choice.of(entry)
    ]


@dataclass(frozen=True)
class Config:
    """Everything that one run is made of.

    Attributes:
        model: the network; `model.options` are those of the layer.
        data: the data and its batches.
        task: what is learned.
        optimizer: the rule of the updates.
        train: the training.
        run: folders and reports.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self):
        """Check what concerns several groups.

        Raises:
            ValueError: if values of different groups do not fit.
        """
        if self.train.finetune and self.run.restore is None:
            raise ValueError("finetune needs restore, the folder of the run to take weights from")
        if self.train.load_pretrained is not None and self.run.restore is not None:
            raise ValueError(
                "load_pretrained and restore exclude each other, got "
                f"{self.train.load_pretrained!r} and {self.run.restore!r}"
            )

    def make_optimizer(self) -> Optimizer:
        """The rule of the updates with its options.

        Raises:
            UnknownNameError: if there is no such optimiser.
            ValueError: if it has no such option, or a value is out of range.
        """
        name = self.optimizer.optimizer
        return build(f"optimizer {name!r}", OPTIMIZERS[name], self.optimizer.options)

    def task_options(self, task: str) -> Any:
        """The options of a task.

        Raises:
            UnknownNameError: if there is no such task.
            ValueError: if it has no such option, or a value is out of range.
        """
        return build(f"task {task!r}", TASKS[task].Options, self.task.options)

    def flat(self) -> dict[str, Any]:
        """All values by the name of their flag."""
        values: dict[str, Any] = {}
        for name in GROUPS:
            fields = fields_for(name, self.model.model)
            values |= {n: getattr(getattr(self, name), n) for n in fields}
        for choice in CHOICES:
            values |= choice.values(self)
        values["data_options"] = dict(values["data_options"])
        return values

    @classmethod
    def from_flat(cls, values: Mapping[str, Any], *, lenient: bool = False) -> "Config":
        """The configuration of flat values, with what the chosen classes declare as defaults.

        Args:
            values: by the names of flags.
            lenient: drop options of classes that are not chosen, instead of refusing them.

        Raises:
            ValueError: if an option is of nobody that was chosen, or a value is out of range.
        """
        names = chosen(values)
        known = own_fields_of_all(names["model"]).keys() | options_of(names).keys()
        declared = declared_defaults(names["model"], names["task"])
        # One for an optimiser that another takes the place of has no effect.
        declared = {n: v for n, v in declared.items() if n in known or not owners_of(n)}
        # YAML has no paths.
        paths = {n: os.fspath(v) for n, v in values.items() if isinstance(v, os.PathLike)}
        values = {**declared, **values, **paths}
        groups: dict[str, Any] = {
            group: {n: values[n] for n in own_fields(group) if n in values} for group in GROUPS
        }
        for name in values.keys() - known:
            refuse(name, names, lenient=lenient)
        for choice in choices_in(names):
            name = names[choice.flag]
            groups[choice.holder][choice.flag] = name
            groups[choice.holder][choice.field] = {
                n: values.get(n, option.default) for n, option in choice.of(name).items()
            }
        config = cls(**{name: kind(**groups[name]) for name, kind in GROUPS.items()})
        # These check their values.
        config.make_optimizer()
        config.task_options(names["task"])
        if "body" in names:
            BODIES[names["body"]].Options(**config.model.body_options)
        return config

    def result_values(self) -> dict[str, Any]:
        """The values that change a result, by flag."""
        values = self.flat()
        for name in own_fields("run"):
            if name != "restore":
                del values[name]
        return values

    def nested(self) -> dict[str, Any]:
        """All values by group, as on disk."""
        groups: dict[str, Any] = {"format": FORMAT}
        for name in GROUPS:
            fields = fields_for(name, self.model.model)
            groups[name] = {n: getattr(getattr(self, name), n) for n in fields}
        for choice in CHOICES:
            groups[choice.group] = groups.get(choice.group, {}) | choice.values(self)
        groups["data"]["data_options"] = dict(groups["data"]["data_options"])
        return groups

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as YAML."""
        write_atomically(Path(path), yaml.safe_dump(self.nested(), sort_keys=False).encode())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Config":
        """Read what `save` wrote, in this or an earlier format.

        Raises:
            ValueError: if it is of a later format.
        """
        values, lenient = read_values(Path(path))
        return cls.from_flat(values, lenient=lenient)


def read_values(path: Path) -> tuple[dict[str, Any], bool]:
    """The flat values in a file of `Config.save`, and whether it may have options of nobody.

    Raises:
        ValueError: if it is of a later format.
    """
    saved = yaml.safe_load(path.read_text())
    form = saved.pop("format", 1)
    if form not in range(1, FORMAT + 1):
        raise ValueError(f"{path} has format {form}, but only 1 to {FORMAT} can be read")
    values: dict[str, Any] = {}
    for group in [saved] if form == 1 else saved.values():
        for name, value in group.items():
            # YAML has no tuples.
            values[ALIASES.get(str(name), str(name))] = (
                tuple(value) if isinstance(value, list) else value
            )
    if form < FORMAT:
        # Earlier formats took them all the same.
        for name in without_effect(values):
            del values[name]
    return values, form < FORMAT


def refuse(name: str, names: Mapping[str, str], *, lenient: bool = False) -> None:
    """Refuse an option that nobody chosen has.

    Args:
        name: of the option.
        names: of the chosen classes by flag.
        lenient: let it pass if another class has it.

    Raises:
        ValueError: naming its owners.
    """
    owners = owners_of(name)
    if lenient and owners:
        return
    here = ", ".join(f"{choice.flag} {names[choice.flag]!r}" for choice in choices_in(names))
    if not owners:
        known = own_fields_of_all(names["model"]).keys() | options_of(names).keys()
        raise ValueError(
            f"there is no option {name}; this run has {here}{suggestion(name, sorted(known))}"
        )
    raise ValueError(f"{name} is an option of {', '.join(owners)}, but this run has {here}")
