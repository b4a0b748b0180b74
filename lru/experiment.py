"""The one place where configuration, data, task, model and trainer are joined, and runs are opened.

Commands, `lru.fit`, exports and tests all go through it.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
from flax import nnx

from lru.analysis.methods import Analysis, Opened
from lru.config import Config, read_values
from lru.dataloaders import Prepared, dataset_from_options
from lru.defaults import resolved, task_of, with_memory
from lru.devices import Devices, is_first, join_processes
from lru.files import write_atomically
from lru.models import ModelConfig
from lru.models.sizes import Sizes, sizes
from lru.plugins import load_plugins, load_saved_plugins
from lru.run_folders import check_run, start
from lru.tasks import TASKS, Task
from lru.training.checkpoints import Checkpoints, Retention
from lru.training.loop import Summary, Trainer
from lru.training.runs import Run, find_run, open_trackers
from lru.training.trackers import Trackers
from lru.training.weights import named_arrays, write_weights


class Experiment(NamedTuple):
    """A configuration joined with everything that it names.

    Attributes:
        config: with the value of every option.
        data: what is learned from.
        task: what is learned.
        run: the folder.
        trainer: with the state that the run starts from.
    """

    config: Config
    data: Prepared
    task: Task
    run: Run
    trainer: Trainer

    @property
    def sizes(self) -> Sizes:
        """Numbers of parameters and of the state of a lane."""
        return sizes(lambda: self.task.build_model(nnx.Rngs(0)))

    def fit(self) -> Summary:
        """Train to the end, with the trackers of the configuration; the folder says that it did."""
        wanted, values = self.config.run, self.config.flat()
        if not is_first():
            return self.trainer.fit(Trackers(), wanted.stop_signals)
        with open_trackers(self.run, wanted, self.trainer.step, values) as trackers:
            try:
                summary = self.trainer.fit(trackers, wanted.stop_signals)
            finally:
                # Checkpoints flush the log before they are written.
                self.trainer.wait()
        outcome = {name: value for name, value in summary._asdict().items() if name != "timing"}
        outcome |= self.sizes._asdict()
        write_atomically(self.run.summary_file, json.dumps(outcome, indent=1).encode())
        return summary


class Trained(NamedTuple):
    """A model and where it comes from.

    Attributes:
        model: with the parameters of the best checkpoint.
        update: after which the checkpoint was taken.
        task: that it learned.
        data: that it learned from.
        config: of the run.
    """

    model: nnx.Module
    update: int
    task: Task
    data: Prepared
    config: Config


def load_data(config: Config) -> Prepared:
    """The data set of a configuration, prepared if need be."""
    dataset = dataset_from_options(config.data.dataset, config.data.data_options)
    return dataset.load(config.run.raw_dir, config.run.dir_name)


def make_task(config: Config, data: Prepared) -> Task:
    """The task of a configuration, on its data.

    An analysis opens the run in whose folder it lies.

    Raises:
        ValueError: if they do not fit.
    """
    name = config.task.task or task_of(data.card, config.model.model)
    kind, options = TASKS[name], config.task_options(name)
    if not issubclass(kind, Analysis):
        return kind(data.card, config.model, options)
    folder = Run(Path(config.run.runs_dir).parent)
    if not folder.config_file.is_file():
        raise ValueError(
            f"task {name} looks at a trained model: lru analyse RUN --method {name} opens it"
        )
    return kind(data.card, config.model, options, load_models(folder, data=data))


@contextmanager
def open_experiment(config: Config, data: Prepared | None = None) -> Iterator[Experiment]:
    """Open the run of a configuration: a new one, one to go on, or one to evaluate.

    Args:
        config: of the run.
        data: what to learn from; None for the data set that it names.

    Raises:
        InUseError: if another process trains in the folder.
        RunMismatchError: if the folder belongs to another configuration.
        FileNotFoundError: if there is nothing to evaluate or to start from.
        OSError: if the first of several processes cannot begin.
        ValueError: if something does not fit.
    """
    join_processes(config.run.coordinator, config.run.num_processes, config.run.process_id)
    if data is None:
        config = resolved(config)
        data = load_data(config)
    else:
        named = dataclasses.replace(config.data, dataset=data.card.name, data_options={})
        task = dataclasses.replace(
            config.task, task=config.task.task or task_of(data.card, config.model.model)
        )
        config = Config.from_flat(dataclasses.replace(config, data=named, task=task).flat())
    task = make_task(config, data)
    run = check_run(config)
    trainer = make_trainer(config, data, task, run)
    try:
        start(trainer, config)
        yield Experiment(config, data, task, run, trainer)
    finally:
        trainer.close()
        run.close()


def make_trainer(config: Config, data: Prepared, task: Task, run: Run) -> Trainer:
    """The trainer of a run before its first update; nothing is written."""
    train, run_config = config.train, config.run
    # Several updates in a call take their batches from there.
    on_device = True if run_config.steps_per_call > 1 else run_config.on_device
    return Trainer(
        task,
        task.sources(data, config.data, seed=train.order_seed, on_device=on_device),
        train,
        config.make_optimizer(),
        Checkpoints(
            run.checkpoints,
            read_only=run_config.eval_only,
            retention=Retention(run_config.keep_last, run_config.keep_every_hours),
        ),
        data={"data": data.card.checksum, "vocabulary": _vocabulary_checksum(data)},
        save_every=run_config.checkpoint_every,
        steps_per_call=run_config.steps_per_call,
        log_memory=run_config.log_memory,
        devices=Devices.named(run_config.mesh),
    )


def _vocabulary_checksum(data: Prepared) -> str:
    return hashlib.sha256(json.dumps(data.card.vocabulary).encode()).hexdigest()


def fit(
    data: Prepared, config: Config | None = None, **flags: Any
) -> tuple[nnx.Module | list[nnx.Module], Summary]:
    """Train a model; as from the command line, the run has a folder and goes on if it is there.

    Args:
        data: what to learn from; in the run's folder it goes by the name on its card.
        config: everything else; None for the defaults.
        flags: values by the names of flags instead, such as `model="lru", epochs=3`; `memory`,
            too.

    Returns:
        The model after the last update, or those of all lanes, and how the run went.

    Raises:
        TypeError: if the data is none that was prepared.
        ValueError: if the task, the model or the configuration does not fit the data.
    """
    if not isinstance(data, Prepared):
        raise TypeError(
            "data must be that of lru.dataloaders.from_arrays or of Dataset.load, got a "
            f"{type(data).__name__}"
        )
    if config is not None and flags:
        raise ValueError(f"give config or flags, not both; got both, with {', '.join(flags)}")
    if config is None:
        model = flags.get("model", ModelConfig.model)
        memory = flags.pop("memory", None)
        config = Config.from_flat({"task": task_of(data.card, model), **flags})
        if memory is not None:
            config = with_memory(config, str(memory), flags, data.card)
    with open_experiment(config, data) as experiment:
        summary = experiment.fit()
        models = [experiment.trainer.model(lane) for lane in range(experiment.trainer.n)]
    return models[0] if len(models) == 1 else models, summary


def load_plugins_of(run: Run, plugins: str | Sequence[str] | None) -> None:
    """Load plugins before the configuration of a run is read.

    Args:
        run: may name plugins itself, which are not run unasked.
        plugins: to load in place of those.

    Raises:
        ValueError: if the folder names plugins that have not been loaded and none are given.
    """
    if plugins is None:
        load_saved_plugins(
            read_values(run.config_file)[0].get("plugins"), origin=str(run.config_file)
        )
    load_plugins(plugins)


def load_model(
    run: str | os.PathLike[str] | Run,
    lane: int = 0,
    plugins: str | Sequence[str] | None = None,
    data: Prepared | None = None,
) -> Trained:
    """The best checkpoint of a run; its data is prepared if need be.

    Args:
        run: its name, or its folder.
        lane: which of several lanes.
        plugins: to load in place of those that the folder names, which are not run unasked.
        data: what it was trained on, if that was given to `fit`; None for the named data set.

    Raises:
        FileNotFoundError: if there is no such run, or no checkpoint.
        ValueError: if there is no such lane, the data is not what the run was trained on, or the
            folder names plugins that have not been loaded.
    """
    with _evaluated(run, plugins, data) as (trainer, config, data):
        if not 0 <= lane < trainer.n:
            raise ValueError(f"lane must be from 0 to {trainer.n - 1}, got {lane}")
        step = jax.numpy.atleast_1d(trainer.state.step)[lane]
        return Trained(trainer.model(lane), int(step), trainer.task, data, config)


def save_weights(
    run: str | os.PathLike[str] | Run,
    path: str | os.PathLike[str],
    lane: int = 0,
    plugins: str | Sequence[str] | None = None,
) -> int:
    """Write the best weights of a run as a safetensors file, with its configuration.

    Args:
        run: its name, or its folder.
        path: where to; `--load_pretrained` takes it.
        lane: which of several lanes.
        plugins: see `load_model`.

    Returns:
        The update after which they were taken.

    Raises:
        FileNotFoundError: if there is no such run, or no checkpoint.
        ValueError: see `load_model`.
    """
    trained = load_model(run, lane, plugins)
    state = nnx.split(trained.model, nnx.Param, ...)[1:]
    values, vocabulary = trained.config.flat(), _vocabulary_checksum(trained.data)
    about = {"update": trained.update, "vocabulary": vocabulary}
    write_weights(path, named_arrays(state), values, **about)
    return trained.update


def load_models(
    run: str | os.PathLike[str] | Run,
    plugins: str | Sequence[str] | None = None,
    data: Prepared | None = None,
) -> Opened:
    """The best checkpoints of all lanes of a run, to be analysed; see `load_model`.

    Args:
        run: its name, or its folder.
        plugins: to load in place of those that the folder names.
        data: what it was trained on; None for the named data set.
    """
    with _evaluated(run, plugins, data) as (trainer, _, _):
        return Opened(trainer.task, [trainer.model(lane) for lane in range(trainer.n)])


@contextmanager
def _evaluated(
    run: str | os.PathLike[str] | Run, plugins: Any, data: Prepared | None
) -> Iterator[tuple[Trainer, Config, Prepared]]:
    """A run with its best checkpoints loaded; nothing is written."""
    folder = run if isinstance(run, Run) else find_run(run)
    load_plugins_of(folder, plugins)
    config = Config.load(folder.config_file)
    # The folder may have been moved, and the runs that lie in it with it.
    place = folder.path.resolve()
    here = {"eval_only": True, "runs_dir": str(place.parent), "name": place.name}
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, **here))
    data = load_data(config) if data is None else data
    trainer = make_trainer(config, data, make_task(config, data), folder)
    try:
        trainer.load("best")
        yield trainer, config, data
    finally:
        trainer.close()


def facts(experiment: Experiment) -> Mapping[str, str]:
    """Facts of a run before it starts, by name."""
    config, card, trainer = experiment.config, experiment.data.card, experiment.trainer
    sizes = ", ".join(f"{name} {split['examples']:,}" for name, split in card.splits.items())
    device, source = jax.devices()[0], trainer.sources["train"]
    lanes = {} if trainer.n == 1 else {"lanes": ", ".join(map(str, trainer.lanes))}
    n_parameters, state_size = experiment.sizes
    return {
        "model": f"{config.model.model}, {n_parameters:,} parameters, "
        f"state of {state_size:,} numbers",
        "data": f"{card.name}: {sizes} {card.unit}s. {card.provenance}",
        "comparable": card.comparable,
        "batches": source.description(),
        **lanes,
        "updates": f"{trainer.step} of {trainer.total_steps} done",
        "device": f"{jax.device_count()} x {device.device_kind} ({device.platform})"
        + trainer.devices.phrase()
        + (", which holds the data" if source.on_device else ""),
    }
