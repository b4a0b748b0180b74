"""Checkpoints of a run, by Orbax: the last one, to resume from, and the best one, to keep.

A run that stops before it evaluates its last update leaves one of a kind of its own, as no
checkpoint takes the place of another of the same update.

A checkpoint is a flat mapping from paths such as `params/head/kernel/value` to arrays, and a JSON
object of the loop's own state. Orbax commits by renaming, so a run killed while it writes leaves
the checkpoint before.
"""

import glob
import math
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import orbax.checkpoint as ocp

from lru.devices import is_first
from lru.training.first_form import as_second_form
from lru.training.update import TrainState

Kind = Literal["last", "unevaluated", "best"]
TO_RESUME: tuple[Kind, ...] = ("last", "unevaluated")
"""Kinds to resume from: the newest, and of two of one update the first."""


class OtherArraysError(ValueError):
    """A checkpoint has not the arrays that a state has."""


def _flatten(state: TrainState) -> tuple[dict[str, Any], Any]:
    leaves, treedef = jax.tree_util.tree_flatten_with_path(state)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    return dict(zip(names, [leaf for _, leaf in leaves], strict=True)), treedef


def _field(name: str) -> str:
    return name.split("/")[0]


class Checkpoints:
    """The checkpoints under one folder.

    Attributes:
        folder: holds one folder a kind.
    """

    def __init__(self, folder: Path, read_only: bool = False):
        """Open a folder of checkpoints.

        Args:
            folder: holds one folder a kind.
            read_only: leave it as it is; another process may be writing there, as the first one
                does of several that train together.
        """
        self.folder = folder
        self._read_only = read_only or not is_first()
        self._managers: dict[Kind, ocp.CheckpointManager] = {}

    def _manager(self, kind: Kind) -> ocp.CheckpointManager:
        """The manager of a kind, whose folder is made if it is not there."""
        if kind not in self._managers:
            folder = self.folder.absolute()
            if not self._read_only:
                (folder / kind).mkdir(parents=True, exist_ok=True)
            # Orbax joins the files of its database by a pattern that begins with their own path.
            literal = str(folder) == glob.escape(str(folder))
            self._managers[kind] = ocp.CheckpointManager(
                folder / kind,
                item_handlers={
                    "state": ocp.StandardCheckpointHandler(use_ocdbt=literal),
                    "progress": ocp.JsonCheckpointHandler(),
                },
                options=ocp.CheckpointManagerOptions(
                    max_to_keep=1,
                    cleanup_tmp_directories=not self._read_only,
                    create=False,
                    read_only=self._read_only,
                    # Arrays are whole: no process waits for another in here.
                    multiprocessing_options=ocp.options.MultiprocessingOptions(
                        primary_host=jax.process_index(), active_processes={jax.process_index()}
                    ),
                    # Of each step it would read a file that another process may just remove.
                    lightweight_initialize=True,
                ),
            )
        return self._managers[kind]

    def latest_step(self, kind: Kind) -> int | None:
        """The update after which the checkpoint was taken; None if there is none."""
        return self._manager(kind).latest_step() if (self.folder / kind).is_dir() else None

    def to_resume(self) -> Kind | None:
        """The kind of the checkpoint to resume from; None if there is none."""
        found: list[Kind] = [kind for kind in TO_RESUME if self.latest_step(kind) is not None]
        return max(found, key=lambda kind: self.latest_step(kind) or 0, default=None)

    def n_parameters(self, kind: Kind) -> int | None:
        """Number of real parameters in a checkpoint, of all lanes; None if there is none."""
        step = self.latest_step(kind)
        if step is None:
            return None
        arrays = self._manager(kind).item_metadata(step)["state"]
        return sum(
            math.prod(array.shape) for name, array in arrays.items() if _field(name) == "params"
        )

    def save(self, kind: Kind, step: int, state: TrainState, progress: dict[str, Any]) -> None:
        """Write in the background; a checkpoint that exists at this step stays as it is.

        Nothing is written to a folder that was opened to read only.
        """
        if self._read_only:
            return
        manager = self._manager(kind)
        if step in manager.all_steps():
            return
        # A copy: the next update reuses the state's buffers while Orbax still writes.
        arrays = {name: np.array(leaf) for name, leaf in _flatten(state)[0].items()}
        manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(arrays), progress=ocp.args.JsonSave(progress)
            ),
        )

    def clear(self, kind: Kind) -> None:
        """Remove all of this kind, unless the folder was opened to read only."""
        if not self._read_only and self.latest_step(kind) is not None:
            for step in self._manager(kind).all_steps():
                self._manager(kind).delete(step)

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
        """
        step = self.latest_step(kind)
        if step is None:
            raise FileNotFoundError(f"no {kind} checkpoint in {self.folder / kind}")
        manager = self._manager(kind)
        leaves, treedef = _flatten(like)
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
        state = jax.tree_util.tree_unflatten(treedef, leaves.values())
        return state, progress | {"step": step}

    def _read(self, manager: ocp.CheckpointManager, step: int) -> tuple[int, Any]:
        parts = ocp.args.Composite(
            state=ocp.args.StandardRestore(), progress=ocp.args.JsonRestore()
        )
        while True:
            try:
                return step, manager.restore(step, args=parts)
            # The error depends on which files were gone already.
            except (OSError, ValueError, KeyError):
                if not self._read_only:
                    raise
                manager.reload()
                newest = manager.latest_step()
                if newest is None or newest == step:
                    raise
                step = newest

    def wait(self) -> None:
        """Return once everything is on disk."""
        for manager in self._managers.values():
            manager.wait_until_finished()

    def close(self) -> None:
        """Finish writing and release the folder."""
        self.wait()
        for manager in self._managers.values():
            manager.close()
