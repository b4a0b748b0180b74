"""Run folders: `runs/<name>/` with its configuration and logs; started, resumed, kept aside."""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from lru.training.config import Config, RunConfig
from lru.training.lock import lock, unlock
from lru.training.trackers import JsonLinesTracker, TensorBoardTracker, Trackers, WandbTracker


class RunMismatchError(ValueError):
    """A run folder holds another configuration."""


class Run(NamedTuple):
    """An open run folder.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def config_file(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def metrics_file(self) -> Path:
        """Deterministic metrics, one JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def saved_update(self) -> int | None:
        """The update that would be resumed from; None if there is none."""
        names = [entry.name for entry in self.checkpoints.glob("last/*")]
        return max((int(name) for name in names if name.isdigit()), default=None)

    def close(self) -> None:
        """Let other processes train in the folder."""
        unlock(self.path)


def run_path(config: Config) -> Path:
    """The folder of a configuration's run."""
    return Path(config.run.runs_dir) / (config.run.name or _default_name(config))


def _default_name(config: Config) -> str:
    """Data set, model, seed, and a hash of all that changes the result: same command, same run."""
    values = json.dumps(config.result_values(), sort_keys=True, default=str)
    return "-".join(
        [
            config.data.dataset.removesuffix("-classification"),
            config.model.model,
            f"seed{config.train.jax_seed}",
            hashlib.sha256(values.encode()).hexdigest()[:6],
        ]
    )


def open_run(config: Config) -> Run:
    """Create the folder of a run, or find it again.

    Unless only an evaluation is asked for, no other process may train in it until it is closed.

    Raises:
        InUseError: if another process trains in the folder.
        RunMismatchError: if the folder belongs to another configuration.
        FileNotFoundError: if only an evaluation is asked for and there is no run.
        ValueError: if the run is to be restored from itself.
    """
    path = run_path(config)
    file = Run(path).config_file
    if config.run.restore is not None and Path(config.run.restore).resolve() == path.resolve():
        raise ValueError(
            f"restore names the folder of this run itself, {path}; choose another --name, or "
            "resume it without --restore"
        )
    if config.run.eval_only and not file.exists():
        raise FileNotFoundError(f"eval_only needs a run, but there is none in {path}")
    if config.run.reset and path.exists():
        lock(path)
        path.rename(_aside(path))
        unlock(path)
    if has_checkpoint(path):
        differences = Config.load(file).differences(config)
        if differences:
            listed = ", ".join(
                f"{name}: {old} there, {new} now" for name, (old, new) in differences.items()
            )
            raise RunMismatchError(
                f"the run in {path} has another configuration ({listed}); choose another --name, "
                "or start it over with --reset"
            )
    if config.run.eval_only:
        return Run(path)
    path.mkdir(parents=True, exist_ok=True)
    lock(path)
    once = dataclasses.replace(config.run, reset=False)
    dataclasses.replace(config, run=once).save(file)
    return Run(path)


def _aside(path: Path) -> Path:
    """The first free name to keep a folder under."""
    names = (path.with_name(f"{path.name}.old{i}") for i in itertools.count(1))
    return next(name for name in names if not name.exists())


def find_run(run: str) -> Run:
    """The run of this name in the default folder of runs, or in the folder of this path.

    Raises:
        FileNotFoundError: if there is none.
    """
    paths = (Path(RunConfig.runs_dir) / run, Path(run))
    for path in paths:
        if Run(path).config_file.is_file():
            return Run(path)
    tried = " and ".join(map(str, paths))
    raise FileNotFoundError(
        f"there is no run {run!r}: {tried} have no {Run(paths[0]).config_file.name}"
    )


def has_checkpoint(path: Path) -> bool:
    """Tell if a folder has anything to resume; a run that failed before may be started anew."""
    # Checkpoints half-written have more than the number of their update as a name.
    return any(entry.name.isdigit() for entry in (path / "checkpoints").glob("*/*"))


@contextmanager
def open_trackers(config: Config, run: Run, step: int) -> Iterator[Trackers]:
    """Open everything that the run logs to; closed at the end of the block.

    Args:
        config: of the run.
        run: its folder.
        step: updates made so far, of which later lines are void.
    """
    wanted = config.run
    trackers = Trackers([JsonLinesTracker(run.metrics_file)])
    if wanted.tensorboard:
        trackers.add(lambda: TensorBoardTracker(run.path / "tensorboard", purge_step=step + 1))
    if wanted.use_wandb:
        trackers.add(
            lambda: WandbTracker(
                run.path, wanted.wandb_project, wanted.wandb_entity, run.path.name, config.flat()
            )
        )
    try:
        yield trackers
    finally:
        trackers.close()
