"""Checkpoints of a run, by Orbax: the last ones, to resume from, and the best one, to keep.

A run that stops before it evaluates its last update leaves one of a kind of its own, as no
checkpoint takes the place of another of the same update.

A checkpoint is a flat mapping from paths such as `params/head/kernel/value` to arrays, and a JSON
object of the loop's own state. Orbax commits by renaming, so a run killed while it writes leaves
the checkpoint before. A thread of its own writes them one after the other: training never waits
for the disk, and goes on if it is full.
"""

import errno
import glob
import logging
import math
import os
import shutil
import sys
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, EveryNSeconds, LatestN

from lru.devices import is_first
from lru.training.first_form import as_second_form
from lru.training.update import TrainState
from lru.training.weights import leaves_by_path

logger = logging.getLogger(__name__)

Kind = Literal["last", "unevaluated", "best"]
TO_RESUME: tuple[Kind, ...] = ("last", "unevaluated")
"""Kinds to resume from: the newest, and of two of one update the first."""


class OtherArraysError(ValueError):
    """A checkpoint has not the arrays that a state has."""


class UnreadableError(ValueError):
    """A checkpoint is damaged."""


class Retention(NamedTuple):
    """Checkpoints to resume from that stay on disk.

    Attributes:
        last: number of the last ones.
        hours: length of the windows of time of each of which one more stays; None for no more.
    """

    last: int = 1
    hours: float | None = None

    @property
    def policy(self) -> AnyPreservationPolicy:
        """The policy of Orbax that keeps these."""
        windows = [] if self.hours is None else [EveryNSeconds(round(self.hours * 3600))]
        return AnyPreservationPolicy([LatestN(self.last), *windows])


LAST_ONLY = Retention()


class _Written(NamedTuple):
    """A checkpoint that is being written, or will be.

    Attributes:
        kind: of the checkpoint.
        done: when it is on disk, or could not be written.
    """

    kind: Kind
    done: Future


@contextmanager
def _quiet_if_it_fails() -> Iterator[None]:
    """In the block, and for good if it fails, nothing is said of reads that Orbax leaves behind.

    When one array cannot be read, it closes the loop of events to which the reads of the others
    report: each then ends, at any time later, with an error of its own that nobody can handle.
    """
    before = sys.unraisablehook

    def report(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    sys.unraisablehook = report
    yield
    sys.unraisablehook = before


def _field(name: str) -> str:
    return name.split("/")[0]


class _Owed(NamedTuple):
    """A checkpoint to be written.

    Attributes:
        step: updates made.
        arrays: by path.
        progress: what to write beside them.
        before: is called first.
    """

    step: int
    arrays: dict[str, np.ndarray]
    progress: dict[str, Any]
    before: Callable[[], None]


class Checkpoints:
    """The checkpoints under one folder.

    Attributes:
        folder: holds one folder a kind.
        failure: why a newest checkpoint could not be written yet; None if all are.
    """

    def __init__(self, folder: Path, read_only: bool = False, retention: Retention = LAST_ONLY):
        """Open a folder of checkpoints.

        Args:
            folder: holds one folder a kind.
            read_only: leave it as it is; another process may be writing there, as the first one
                does of several that train together.
            retention: what stays of those to resume from.
        """
        self.folder = folder
        self.failure: Exception | None = None
        self._read_only, self._retention = read_only or not is_first(), retention
        self._managers: dict[Kind, ocp.CheckpointManager] = {}
        self._writer = ThreadPoolExecutor(1, "checkpoints")
        self._writing: list[_Written] = []
        self._owed: dict[Kind, _Owed] = {}

    def _manager(self, kind: Kind) -> ocp.CheckpointManager:
        """The manager of a kind, whose folder is made if it is not there."""
        if kind not in self._managers:
            folder = self.folder.absolute()
            if not self._read_only:
                (folder / kind).mkdir(parents=True, exist_ok=True)
            # Orbax joins the files of its database by a pattern that begins with their own path.
            literal = str(folder) == glob.escape(str(folder))
            retention = self._retention if kind == "last" else LAST_ONLY
            self._managers[kind] = ocp.CheckpointManager(
                folder / kind,
                item_handlers={
                    "state": ocp.StandardCheckpointHandler(use_ocdbt=literal),
                    "progress": ocp.JsonCheckpointHandler(),
                },
                options=ocp.CheckpointManagerOptions(
                    preservation_policy=retention.policy,
                    # Opened like this it writes nothing, and need not be told to.
                    cleanup_tmp_directories=not self._read_only,
                    create=False,
                    # It would wait for the checkpoint before.
                    enable_async_checkpointing=False,
                    # Arrays are whole: no process waits for another in here.
                    multiprocessing_options=ocp.options.MultiprocessingOptions(
                        primary_host=jax.process_index(), active_processes={jax.process_index()}
                    ),
                    # Of each step it would read a file that another process may just remove. Who
                    # writes reads them, for their times.
                    lightweight_initialize=self._read_only,
                ),
            )
        return self._managers[kind]

    def latest_step(self, kind: Kind) -> int | None:
        """The update after which the newest checkpoint was taken; None if there is none."""
        self.wait()
        return self._manager(kind).latest_step() if (self.folder / kind).is_dir() else None

    def to_resume(self) -> Kind | None:
        """The kind of the checkpoint to resume from; None if there is none."""
        return max(self._there(), key=lambda kind: self.latest_step(kind) or 0, default=None)

    def count(self) -> int:
        """Number of checkpoints to resume from."""
        return sum(len(self._manager(kind).all_steps()) for kind in self._there())

    def _there(self) -> list[Kind]:
        return [kind for kind in TO_RESUME if self.latest_step(kind) is not None]

    def n_parameters(self, kind: Kind) -> int | None:
        """Number of real parameters in a checkpoint, of all lanes; None if there is none."""
        step = self.latest_step(kind)
        if step is None:
            return None
        arrays = self._manager(kind).item_metadata(step)["state"]
        return sum(
            math.prod(array.shape) for name, array in arrays.items() if _field(name) == "params"
        )

    def save(
        self,
        kind: Kind,
        step: int,
        state: TrainState,
        progress: dict[str, Any],
        before: Callable[[], None] = lambda: None,
    ) -> None:
        """Write in the background; a checkpoint that exists at this step stays as it is.

        Checkpoints are written in the order of the calls, but those that a newer one of their kind
        makes superfluous while they wait are left out. One that cannot be written is warned of.
        Nothing is written to a folder that was opened to read only.

        Args:
            kind: which one.
            step: updates made so far.
            state: what to write.
            progress: what to write beside it, as JSON.
            before: is called first, in the background.
        """
        if self._read_only:
            return
        # A copy: the next update reuses the state's buffers before they are written.
        arrays = {name: np.array(leaf) for name, leaf in leaves_by_path(state).items()}
        self._writing = [written for written in self._writing if not written.done.done()]
        if kind in TO_RESUME:
            # What it builds on is the newest of the best.
            best = [written for written in self._writing if written.kind == "best"][-1:]
            for written in self._writing:
                if written not in best:
                    written.done.cancel()
        done = self._writer.submit(self._write, kind, step, arrays, progress, before)
        self._writing.append(_Written(kind, done))

    def _write(
        self, kind: Kind, step: int, arrays: Any, progress: Any, before: Callable[[], None]
    ) -> None:
        # What could not be written before is tried again, the best first: the others build on it.
        if kind in TO_RESUME:
            for superseded in TO_RESUME:
                self._owed.pop(superseded, None)
        self._owed[kind] = _Owed(step, arrays, progress, before)
        self.failure = None
        for kind, owed in sorted(self._owed.items(), key=lambda pair: pair[0] != "best"):
            try:
                self._write_now(kind, owed)
                del self._owed[kind]
            except Exception as error:
                self.failure = error
                logger.warning(
                    "the %s checkpoint of update %d could not be written to %s, and training goes "
                    "on without it: %s",
                    *(kind, owed.step, self.folder, " ".join(str(error).split())),
                )
                self._managers.pop(kind, None)
                return

    def _write_now(self, kind: Kind, owed: "_Owed") -> None:
        owed.before()
        manager = self._manager(kind)
        steps = manager.all_steps()
        # Of a run that has gone on from before them; Orbax would not write one that is older.
        for later in [step for step in steps if step > owed.step]:
            manager.delete(later)
        if owed.step not in steps:
            self._check_room(sum(array.nbytes for array in owed.arrays.values()))
            parts = ocp.args.Composite(
                state=ocp.args.StandardSave(owed.arrays), progress=ocp.args.JsonSave(owed.progress)
            )
            manager.save(owed.step, args=parts)
        if kind == "last":
            self._clear("unevaluated")

    def _check_room(self, size: int) -> None:
        """Refuse to begin what the disk has no room for: Orbax would leave a trail of errors.

        Raises:
            OSError: if it has not.
        """
        free = shutil.disk_usage(self.folder).free
        if free < size:
            raise OSError(
                errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {size:,} bytes to write, {free:,} free"
            )

    def clear(self, kind: Kind) -> None:
        """Remove all of this kind, unless the folder was opened to read only."""
        self.wait()
        self._clear(kind)

    def _clear(self, kind: Kind) -> None:
        if not self._read_only and (self.folder / kind).is_dir():
            for step in self._manager(kind).all_steps():
                self._manager(kind).delete(step)

    def set_aside(self, kind: Kind) -> Path:
        """Move the newest of a kind to where it is not taken for one; its new path."""
        step, manager = self.latest_step(kind), self._manager(kind)
        aside = self.folder / "damaged"
        aside.mkdir(exist_ok=True)
        names = (aside / f"{kind}-{step}-{number}" for number in count())
        target = next(name for name in names if not name.exists())
        (self.folder / kind / str(step)).rename(target)
        manager.reload()
        return target

    def restore(
        self,
        kind: Kind,
        like: TrainState,
        only: Collection[str] = TrainState._fields,
        optional: Collection[str] = (),
    ) -> tuple[TrainState, dict[str, Any]]:
        """Read the checkpoint into the structure of `like`.

        Opened to read only, a checkpoint that is replaced while it is read gives way to the new
        one.

        Args:
            kind: which one.
            like: a state with arrays of the same shapes.
            only: fields of the state to read; the others stay those of `like`.
            optional: paths above arrays that stay those of `like` if the checkpoint has none, and
                are left out if `like` has none.

        Returns:
            The state, and what was saved as its progress, with the `step`.

        Raises:
            FileNotFoundError: if there is none.
            OtherArraysError: if it holds other arrays than `like`.
            UnreadableError: if it is damaged.
        """
        step = self.latest_step(kind)
        if step is None:
            raise FileNotFoundError(f"no {kind} checkpoint in {self.folder / kind}")
        manager = self._manager(kind)
        leaves = leaves_by_path(like)
        wanted = {name: leaf for name, leaf in leaves.items() if _field(name) in only}
        step, saved = self._read(manager, step)
        arrays, progress = as_second_form(saved["state"], saved["progress"])
        arrays = {name: a for name, a in arrays.items() if _field(name) in only}
        for name in sorted({*wanted, *arrays}):
            if name not in arrays or name not in wanted:
                if any(name.startswith(f"{path}/") for path in optional):
                    continue
                where = "missing from" if name in wanted else "unknown to the model but in"
                raise OtherArraysError(
                    f"{name} is {where} the checkpoint {manager.directory}/{step}"
                )
            if arrays[name].shape != wanted[name].shape:
                raise OtherArraysError(
                    f"{name} has shape {arrays[name].shape} in the checkpoint "
                    f"{manager.directory}/{step}, but {wanted[name].shape} in the model"
                )
        for name in wanted.keys() & arrays.keys():
            leaves[name] = jax.numpy.asarray(arrays[name], wanted[name].dtype)
        state = jax.tree.unflatten(jax.tree.structure(like), leaves.values())
        return state, progress | {"step": step}

    def _read(self, manager: ocp.CheckpointManager, step: int) -> tuple[int, Any]:
        parts = ocp.args.Composite(
            state=ocp.args.StandardRestore(), progress=ocp.args.JsonRestore()
        )
        while True:
            try:
                with _quiet_if_it_fails():
                    return step, manager.restore(step, args=parts)
            # The error depends on which files are gone, or cut.
            except (OSError, ValueError, KeyError, TypeError) as error:
                if isinstance(error, PermissionError):
                    raise
                manager.reload()
                newest = manager.latest_step() if self._read_only else step
                if newest is None or newest == step:
                    raise UnreadableError(
                        f"the checkpoint of update {step} in {manager.directory} cannot be read, "
                        f"it is damaged ({' '.join(str(error).split())[:200]})"
                    ) from error
                step = newest

    def wait(self) -> None:
        """Return once everything is on disk that can be written."""
        wait([written.done for written in self._writing])

    def close(self) -> None:
        """Finish writing and release the folder."""
        self._writer.shutdown()
        for manager in self._managers.values():
            manager.close()
