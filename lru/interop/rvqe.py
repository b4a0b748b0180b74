"""Checkpoints of RVQE, the first code of the quantum recurrent network (Bausch, NeurIPS 2020).

They are files of `torch.save` as PyTorch wrote them before 1.6: four pickles (magic number, version
of the format, machine, object), one of the keys of storages, and the storages, each with its
length. They are read without PyTorch, and none of their code runs.

Parameters are there one array for each neuron, and here stacked over neurons. Of a cell with w
lanes of workspace, i in/out lanes, S work stages and P weights a neuron:

    phi [1+S, w, P], theta [1+S, w]    cell.input_layer.K.φ|θ, then cell.kernel_layer.s.K.φ|θ
    rotations [S, w]                   cell.kernel_layer.s.0.θs
    output_phi [i, P], output_theta [i]    cell.output_layer.K.φ|θ
"""

import os
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from lru.dataloaders.files.pickles import RestrictedUnpickler
from lru.scan.quantum import n_subsets

_MAGIC_AND_VERSION = (0x1950A86A20F9469CFC6C, 1001)

_ZIP = b"PK\x03\x04"

_STORAGES = {"FloatStorage": "<f4", "DoubleStorage": "<f8", "ByteStorage": "u1"}
"""Types of numbers, by the classes of PyTorch for arrays of them."""


_PARTS = (
    "epoch",
    "best_validation_loss",
    "best_character_error_rate",
    "model_state_dict",
    "optimizer_state_dict",
    "_original_args",
)


class Checkpoint(NamedTuple):
    """All that a checkpoint holds."""

    epoch: int
    """Number, from 0, of the last update; an epoch is one batch there."""
    best_validation_loss: float
    best_character_error_rate: float
    arguments: dict[str, Any]
    """Values of the command line, by flag."""
    parameters: dict[str, np.ndarray]
    """By name, such as `cell.input_layer.0.φ`, in the order of the model."""
    hyperparameters: dict[str, Any]
    """Those of the optimiser, such as lr, betas and weight_decay."""
    optimizer_state: dict[str, dict[str, Any]]
    """By name of a parameter, what the optimiser keeps of it; empty if nothing."""
    others: dict[str, Any]
    """All else, by its name in the file."""


class _Unpickler(RestrictedUnpickler):
    """Reader of the object, whose arrays are views of storages that are filled afterwards."""

    def __init__(self, file: BufferedReader) -> None:
        names = {
            ("collections", "OrderedDict"): OrderedDict,
            ("argparse", "Namespace"): SimpleNamespace,
            ("torch._utils", "_rebuild_tensor_v2"): _array,
            # The function of the command, in the first process or in one that it started.
            ("__main__", "command_train"): None,
            ("__mp_main__", "command_train"): None,
        }
        super().__init__(file, names | {("torch", name): name for name in _STORAGES})
        self.storages: dict[str, np.ndarray] = {}
        self._largest = os.fstat(file.fileno()).st_size

    def persistent_load(self, pid: Any) -> np.ndarray:
        """The storage that an array lies in, without its numbers."""
        _, kind, key, _, length, view = pid
        storage = self.storages.get(key)
        if storage is None:
            dtype = np.dtype(_STORAGES[kind])
            if view is not None or length * dtype.itemsize > self._largest:
                raise pickle.UnpicklingError(f"it refers to {pid}, which is not in it")
            storage = self.storages[key] = np.zeros(length, dtype)
        return storage


def read_checkpoint(path: str | os.PathLike) -> Checkpoint:
    """A checkpoint of RVQE, read without running any code of it.

    Args:
        path: the file, `checkpoint-….tar`.

    Raises:
        OSError: if it cannot be opened.
        ValueError: if it is damaged, is something else, or asks for what no such checkpoint needs.
    """
    path = Path(path)
    with path.open("rb") as file:
        try:
            return _checkpoint(_load(file))
        # A damaged pickle can raise nearly anything.
        except Exception as error:
            raise ValueError(
                f"{path} is no checkpoint of RVQE ({error}); it was not read"
            ) from error


def stacked(
    parameters: Mapping[str, Any], workspace: int, stages: int, input_width: int
) -> dict[str, np.ndarray]:
    """Parameters, or what an optimiser keeps of each, stacked over neurons.

    Args:
        parameters: arrays by their names in RVQE.
        workspace: w, lanes of the cell's state.
        stages: S, work stages.
        input_width: i, in/out lanes.

    Returns:
        phi [1+S, w, P], theta [1+S, w], rotations [S, w], output_phi [i, P], output_theta [i].

    Raises:
        ValueError: if names or shapes are not those of such a cell, whatever its degree.
    """
    cell = f"a cell of workspace {workspace}, stages {stages} and input width {input_width}"
    names = _names(workspace, stages, input_width)
    expected = {name for grid in names.values() for name in grid.flat}
    for kind, wrong in (
        ("lack", expected - parameters.keys()),
        ("have, and it has not,", parameters.keys() - expected),
    ):
        if wrong:
            raise ValueError(f"for {cell} the parameters {kind} {', '.join(sorted(wrong))}")
    arrays = {name: np.asarray(value) for name, value in parameters.items()}
    sources = workspace + input_width - 1
    degrees = [(n_subsets(sources, degree),) for degree in range(1, sources + 1)]
    weights = arrays[names["output_phi"][0]].shape
    sizes = [weights] if weights in degrees else degrees
    allowed = {"phi": sizes, "theta": [()], "rotations": [(workspace,)]}
    allowed |= {"output_phi": sizes, "output_theta": [()]}
    out = {}
    for key, grid in names.items():
        for name in grid.flat:
            if arrays[name].shape not in allowed[key]:
                raise ValueError(
                    f"{name} has shape {arrays[name].shape}, but {cell} allows "
                    f"{' or '.join(map(str, allowed[key]))}"
                )
        rows = np.array([arrays[name] for name in grid.flat])
        out[key] = rows.reshape(*grid.shape, *allowed[key][0])
    return out


def unstacked(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Parameters by their names in RVQE, from arrays such as `stacked` makes.

    Args:
        arrays: phi [1+S, w, P], theta [1+S, w], rotations [S, w], output_phi [i, P] and
            output_theta [i].
    """
    depth, workspace = np.shape(arrays["theta"])
    names = _names(workspace, depth - 1, len(arrays["output_theta"]))
    return {
        name: np.asarray(arrays[key])[index]
        for key, grid in names.items()
        for index, name in np.ndenumerate(grid)
    }


def stacked_state(
    checkpoint: Checkpoint, workspace: int, stages: int, input_width: int
) -> tuple[int, dict[str, dict[str, np.ndarray]]]:
    """State of an optimiser that keeps arrays of every parameter, as AdamW and RMSprop do.

    Args:
        checkpoint: whose state.
        workspace: as in `stacked`.
        stages: as in `stacked`.
        input_width: as in `stacked`.

    Returns:
        The number of updates made, and by name, such as exp_avg, what `stacked` makes of the
        arrays.

    Raises:
        ValueError: if the optimiser does not keep the same of every parameter, as L-BFGS does not,
            or what it keeps does not fit the cell.
    """
    states = checkpoint.optimizer_state
    kinds = {(*sorted(state), int(state.get("step", 0))) for state in states.values()}
    if len(kinds) != 1 or not all("step" in state for state in states.values()):
        raise ValueError(
            f"the optimiser {checkpoint.arguments.get('optimizer')!r} of the checkpoint keeps no "
            "array of every parameter, as adam and rmsprop do"
        )
    *kept, step = kinds.pop()
    return step, {
        slot: stacked(
            {name: state[slot] for name, state in states.items()}, workspace, stages, input_width
        )
        for slot in kept
        if slot != "step"
    }


def _names(workspace: int, stages: int, input_width: int) -> dict[str, np.ndarray]:
    """The names of the arrays that each stacked one is made of, laid out as it is."""
    neurons = [[f"cell.input_layer.{k}" for k in range(workspace)]]
    neurons += [
        [f"cell.kernel_layer.{stage}.{k}" for k in range(1, workspace + 1)]
        for stage in range(stages)
    ]
    outputs = [f"cell.output_layer.{k}" for k in range(input_width)]
    names = {
        "phi": [[f"{neuron}.φ" for neuron in row] for row in neurons],
        "theta": [[f"{neuron}.θ" for neuron in row] for row in neurons],
        "rotations": [f"cell.kernel_layer.{stage}.0.θs" for stage in range(stages)],
        "output_phi": [f"{neuron}.φ" for neuron in outputs],
        "output_theta": [f"{neuron}.θ" for neuron in outputs],
    }
    return {key: np.array(value, object) for key, value in names.items()}


def _checkpoint(found: Any) -> Checkpoint:
    """The parts of the object in a file."""
    lacking = [name for name in _PARTS if name not in found]
    if lacking:
        raise ValueError(f"it lacks {', '.join(lacking)}")
    epoch, loss, error_rate, model, optimizer, namespace = (found[name] for name in _PARTS)
    (group,) = optimizer["param_groups"]
    parameters = {name.removeprefix("module."): np.asarray(each) for name, each in model.items()}
    return Checkpoint(
        epoch=int(epoch),
        best_validation_loss=float(loss),
        best_character_error_rate=float(error_rate),
        arguments={name: value for name, value in vars(namespace).items() if name != "func"},
        parameters=parameters,
        hyperparameters={name: value for name, value in group.items() if name != "params"},
        # The keys of the states, in the order of the parameters.
        optimizer_state={
            name: optimizer["state"].get(key, {})
            for name, key in zip(parameters, group["params"], strict=True)
        },
        others={name: value for name, value in found.items() if name not in _PARTS},
    )


def _array(storage: np.ndarray, offset: int, shape: tuple, strides: tuple, *_: Any) -> np.ndarray:
    """A view of a storage; NumPy sees to it that it lies within."""
    steps = [stride * storage.itemsize for stride in strides]
    return np.ndarray(shape, storage.dtype, storage, offset * storage.itemsize, steps)


def _load(file: BufferedReader) -> Any:
    """The object in a file."""
    if file.read(len(_ZIP)) == _ZIP:
        raise ValueError(
            "it is a zip archive, as PyTorch writes from 1.6 on; load it there and save it with "
            "_use_new_zipfile_serialization=False"
        )
    file.seek(0)
    magic, version, _ = (RestrictedUnpickler(file, {}).load() for _ in range(3))
    if (magic, version) != _MAGIC_AND_VERSION:
        raise ValueError("it is no file of PyTorch")
    unpickler = _Unpickler(file)
    found = unpickler.load()
    for key in RestrictedUnpickler(file, {}).load():
        storage = unpickler.storages.pop(key)
        length = int.from_bytes(file.read(8), "little")
        if length != len(storage) or file.readinto(storage.data) != storage.nbytes:
            raise ValueError("it ends too early")
    if unpickler.storages:
        raise ValueError("it lacks the numbers of some arrays")
    return found
