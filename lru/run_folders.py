"""Folders of runs: their names, which configuration may go on in one, where a run starts from."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lru.analysis.methods import Analysis
from lru.config import Config, own_fields
from lru.devices import is_first, on_first
from lru.files import write_atomically
from lru.tasks import TASKS
from lru.training.checkpoints import Checkpoints, OtherArraysError
from lru.training.loop import Trainer
from lru.training.runs import Run, find_run
from lru.training.trackers import truncate
from lru.training.weights import SUFFIX


class RunMismatchError(ValueError):
    """A run folder holds another configuration."""


def run_path(config: Config) -> Path:
    """The folder of a configuration's run."""
    return Path(config.run.runs_dir) / (config.run.name or _default_name(config))


def _default_name(config: Config) -> str:
    """Data set, model, seed, and a hash of all that changes the result: same command, same run.

    An analysis lies in the folder of its run, and has its method in place of data and model.
    """
    task = str(config.task.task)
    of_run = task in TASKS and issubclass(TASKS[task], Analysis)
    data = config.data.dataset.removesuffix("-classification")
    return "-".join(
        [
            *([task] if of_run else [data, config.model.model]),
            f"seed{config.train.jax_seed}",
            result_hash(config),
        ]
    )


def result_hash(config: Config) -> str:
    """Six characters of a hash of all values that change the result."""
    values = json.dumps(config.result_values(), sort_keys=True, default=str)
    return hashlib.sha256(values.encode()).hexdigest()[:6]


def differences(one: Config, other: Config) -> dict[str, tuple[Any, Any]]:
    """Values that change a result and differ between the two, by name.

    An option that only one has comes with a class that differs, which is enough to say.
    """
    mine, theirs = one.result_values(), other.result_values()
    names = sorted(mine.keys() & theirs.keys())
    return {name: (mine[name], theirs[name]) for name in names if mine[name] != theirs[name]}


def _listed(found: Mapping[str, tuple[Any, Any]]) -> str:
    """List of what `differences` found, for a message."""
    return ", ".join(f"{name}: {old} there, {new} now" for name, (old, new) in found.items())


def check_run(config: Config) -> Run:
    """The run of a configuration, if its folder allows it; nothing is written.

    Raises:
        RunMismatchError: if the folder belongs to another configuration.
        FileNotFoundError: if only an evaluation is asked for and there is no run.
        ValueError: if the run is to be restored from itself.
    """
    run = Run(run_path(config))
    restore = config.run.restore
    places = [] if restore is None else [Path(restore), Path(config.run.runs_dir) / restore]
    if run.path.resolve() in [place.resolve() for place in places]:
        raise ValueError(
            f"restore names the folder of this run itself, {run.path}; choose another --name, or "
            "resume it without --restore"
        )
    if config.run.eval_only and not run.config_file.exists():
        raise FileNotFoundError(f"eval_only needs a run, but there is none in {run.path}")
    if run.has_checkpoint and not config.run.reset:
        found = differences(Config.load(run.config_file), config)
        if found:
            raise RunMismatchError(
                f"the run in {run.path} has another configuration ({_listed(found)}); choose "
                "another --name, or start it over with --reset"
            )
    return run


def open_run(config: Config) -> Run:
    """Create the folder of a run, or find it again.

    Unless only an evaluation is asked for, no other process may train in it until it is closed.

    Raises:
        InUseError: if another process trains in the folder.
        OSError: if the folder cannot be written to.
        Exception: see `check_run`.
    """
    run = check_run(config)
    if config.run.reset and run.path.exists():
        run.set_aside()
    if not config.run.eval_only:
        run.open()
        # What is of this command alone: a run may go on on other devices.
        of_command = dict.fromkeys(("mesh", "coordinator", "num_processes", "process_id"))
        once = dataclasses.replace(config.run, reset=False, **of_command)
        dataclasses.replace(config, run=once).save(run.config_file)
    return run


def start(trainer: Trainer, config: Config) -> None:
    """Take over the state that a run starts from, open its folder, and cut its log there.

    A run that cannot start leaves no folder behind.

    Raises:
        FileNotFoundError: if there is nothing to start from.
        Exception: see `open_run`.
    """
    run, other = check_run(config), None
    if config.run.eval_only:
        trainer.load("best")
        return
    anew = config.run.reset or run.saved_update is None
    if config.run.restore is not None and anew:
        other = find_run(config.run.restore, config.run.runs_dir)
        _take_over(trainer, config, other)
    elif config.train.load_pretrained is not None and anew:
        _take_weights(trainer, config, config.train.load_pretrained)
    resumed = False

    def begin() -> None:
        nonlocal resumed
        open_run(config)
        resumed = trainer.resume()

    # It may set a damaged checkpoint aside, which the others are not to see.
    on_first(begin)
    if not is_first():
        trainer.resume()
        return
    if other and not resumed and not config.train.finetune and other.metrics_file.exists():
        write_atomically(run.metrics_file, other.metrics_file.read_bytes())
    # Lines after the checkpoint will be written again.
    truncate(run.metrics_file, trainer.step, evaluated=trainer.evaluated)


def _take_over(trainer: Trainer, config: Config, other: Run) -> None:
    """Take over the state, or the weights, of another run.

    Raises:
        ValueError: if they do not fit.
    """
    if config.train.finetune:
        _take_weights(trainer, config, str(other.path))
        return
    with _checkpoints_of(other, config) as source:
        trainer.continue_from(source)


def _take_weights(trainer: Trainer, config: Config, path: str) -> None:
    """Start from the weights of a run, or of a file.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if they do not fit.
    """
    if path.endswith(SUFFIX):
        trainer.start_from_file(path)
        return
    with _checkpoints_of(find_run(path, config.run.runs_dir), config) as source:
        trainer.start_from(source)


@contextmanager
def _checkpoints_of(other: Run, config: Config) -> Iterator[Checkpoints]:
    """The checkpoints of another run, which this one is to start from."""
    source = Checkpoints(other.checkpoints, read_only=True)
    try:
        yield source
    except OtherArraysError as error:
        found = differences(Config.load(other.config_file), config)
        of_arrays = found.keys() - own_fields("train").keys() - own_fields("run").keys()
        if not of_arrays:
            raise
        listed = _listed({name: found[name] for name in sorted(of_arrays)})
        raise ValueError(
            f"the run in {other.path} has another network or optimiser ({listed}); give the same "
            "values, or do not start from it"
        ) from error
    finally:
        source.close()
