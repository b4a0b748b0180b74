"""Run folders: `runs/<name>/` with configuration, logs and checkpoints."""

import itertools
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from lru.files import make_folder
from lru.training.boards import Files, TensorBoardTracker, WandbTracker
from lru.training.checkpoints import TO_RESUME
from lru.training.config import RunConfig
from lru.training.environment import record_environment
from lru.training.lock import lock, unlock
from lru.training.trackers import JsonLinesTracker, Trackers


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
    def summary_file(self) -> Path:
        """Outcome of the run, once it has ended by itself."""
        return self.path / "summary.json"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def has_checkpoint(self) -> bool:
        """True if there is anything to resume; a run that failed before may be started anew."""
        # Checkpoints half-written have more than the number of their update as a name.
        return any(entry.name.isdigit() for entry in self.checkpoints.glob("*/*"))

    @property
    def saved_update(self) -> int | None:
        """The update that would be resumed from; None if there is none."""
        names = [e.name for kind in TO_RESUME for e in self.checkpoints.glob(f"{kind}/*")]
        return max((int(name) for name in names if name.isdigit()), default=None)

    def open(self) -> None:
        """Make the folder, and keep other processes from training there until `close`.

        Raises:
            InUseError: if another process trains in the folder.
            OSError: if the folder cannot be made or written to.
        """
        make_folder(self.path, "runs_dir")
        lock(self.path)

    def close(self) -> None:
        """Let other processes train in the folder."""
        unlock(self.path)

    def set_aside(self) -> None:
        """Give the folder another name.

        Raises:
            InUseError: if another process trains in the folder.
        """
        self.open()
        names = (self.path.with_name(f"{self.path.name}.old{i}") for i in itertools.count(1))
        self.path.rename(next(name for name in names if not name.exists()))
        unlock(self.path)


def find_run(run: str | os.PathLike[str], runs_dir: str = RunConfig.runs_dir) -> Run:
    """The run of this name, or in the folder of this path.

    Args:
        run: name or path.
        runs_dir: folder of the runs.

    Raises:
        FileNotFoundError: if there is none.
    """
    paths = (Path(runs_dir) / run, Path(run))
    for path in paths:
        if Run(path).config_file.is_file():
            return Run(path)
    tried = " and ".join(map(str, paths))
    raise FileNotFoundError(
        f"there is no run {str(run)!r}: {tried} have no {Run(paths[0]).config_file.name}"
    )


def find_runs(name: str | os.PathLike[str], runs_dir: str = RunConfig.runs_dir) -> list[Run]:
    """The run of this name or path, or all that lie in a folder of this name or path.

    Args:
        name: of a run, or of a folder of runs such as that of a sweep; or its path.
        runs_dir: folder of the runs.

    Raises:
        FileNotFoundError: if there is none.
    """
    try:
        return [find_run(name, runs_dir)]
    except FileNotFoundError:
        for folder in (Path(runs_dir) / name, Path(name)):
            files = sorted(folder.glob(f"*/{Run(folder).config_file.name}"))
            if files:
                return [Run(file.parent) for file in files]
        raise


@contextmanager
def open_trackers(
    run: Run, wanted: RunConfig, step: int, values: Mapping[str, Any]
) -> Iterator[Trackers]:
    """Open everything that the run logs to, and record what it runs on; closed after the block.

    Args:
        run: its folder.
        wanted: which trackers.
        step: updates made so far, of which later lines are void.
        values: the run's configuration, shown beside it.
    """
    environment = record_environment(run.path)
    trackers = Trackers(JsonLinesTracker(run.metrics_file))
    trackers.add("the files of the run", lambda: Files(run.path))
    if wanted.tensorboard:
        folder = run.path / "tensorboard"
        texts = {"config": values, "environment": environment}
        trackers.add("TensorBoard", lambda: TensorBoardTracker(folder, step + 1, texts))
    # An agent of W&B starts runs in order to see them there.
    if wanted.use_wandb or "WANDB_SWEEP_ID" in os.environ:
        config = {**values, "environment": environment}
        account = wanted.wandb_project, wanted.wandb_entity, run.path.name
        trackers.add("Weights & Biases", lambda: WandbTracker(run.path, *account, config))
    try:
        yield trackers
    finally:
        trackers.close()
