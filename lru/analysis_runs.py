"""Runs of analyses, each in the folder of the run that it looks at."""

import os
from typing import Any

from flax import nnx

from lru.analysis.methods import Analysis
from lru.config import Config, choices_of, fields_for, own_fields
from lru.dataloaders import Prepared
from lru.experiment import load_plugins_of, open_experiment
from lru.models import MODELS
from lru.registry import known_names
from lru.tasks import TASKS
from lru.training.lanes import lanes_of
from lru.training.loop import Summary
from lru.training.runs import Run, find_run


def analysis_values(run: Run, method: str) -> dict[str, Any]:
    """Values by flag that the analysis of a run starts from: its model and its data.

    One lane for each of the run.

    Raises:
        ValueError: if there is no such method.
    """
    methods = [name for name, task in TASKS.items() if issubclass(task, Analysis)]
    if method not in TASKS or TASKS.resolve(method) not in methods:
        raise ValueError(f"unknown method {method!r}; {known_names(method, methods)}")
    config = Config.load(run.config_file)
    values = config.flat()
    lanes = lanes_of(config.train, config.make_optimizer(), MODELS[config.model.model].of_draw)
    taken_over = (*own_fields("data"), "dir_name", "raw_dir", "plugins", "on_device")
    return {
        **subject_values(config),
        **{name: values[name] for name in taken_over},
        "task": method,
        "n_seeds": len(lanes),
        "runs_dir": str(run.path / "analyses"),
    }


def subject_values(config: Config) -> dict[str, Any]:
    """The values by flag of what an analysis looks at: a model, and the data that it learned."""
    names = {*fields_for("model", config.model.model), "dataset", "data_options"}
    names |= {name for choice in choices_of("model") for name in choice.values(config)}
    return {name: value for name, value in config.flat().items() if name in names}


def check_analysis(config: Config, run: Run, method: str) -> None:
    """Refuse an analysis of another model, or another data set, than that of the run.

    Other options of the data make other data, which is refused where it is read.

    Args:
        config: of the analysis.
        run: that it looks at.
        method: name of the analysis.

    Raises:
        ValueError: if a value is not that of the run.
    """
    asked = config.flat()
    looked_at = subject_values(Config.load(run.config_file))
    fixed = {**looked_at, "task": method, "runs_dir": str(run.path / "analyses")}
    for name, value in fixed.items():
        if name != "data_options" and asked.get(name) != value:
            raise ValueError(
                f"{name} must be {value!r}, as an analysis looks at the model and the data of its "
                f"run and lies in its folder, got {asked.get(name)!r}"
            )


def analyse(
    run: str | os.PathLike[str] | Run, method: str, data: Prepared | None = None, **flags: Any
) -> tuple[list[nnx.Module], Summary]:
    """Train an analysis of a run; as from the command line, it has a folder in that of the run.

    Args:
        run: its name, or its folder.
        method: name of the analysis.
        data: what the run was trained on, if that was given to `fit`.
        flags: values by the names of flags, such as `max_steps=3000`.

    Returns:
        The analyses of all lanes after the last update, and how the run of the analysis went.

    Raises:
        FileNotFoundError: if there is no such run, or no checkpoint.
        ValueError: if there is no such method, or it does not fit the run.
    """
    folder = run if isinstance(run, Run) else find_run(run)
    load_plugins_of(folder, flags.get("plugins"))
    config = Config.from_flat({**analysis_values(folder, method), **flags})
    check_analysis(config, folder, method)
    with open_experiment(config, data) as experiment:
        summary = experiment.fit()
        trainer = experiment.trainer
        return [trainer.model(lane) for lane in range(trainer.n)], summary
