"""Weights of PyTorch: `torch.nn.LSTM`, `GRU` and `RNN`, and the QRNNs of `torchqrnn`.

Names and layouts are those of the state dicts there. A weight of `torchqrnn` has rows by gate, Z,
F, O (and I), and columns by step, [x_t | x_{t-1} | ...]; one of `torch.nn` is the transpose of that
here. The backward direction has the suffix `_reverse`. PyTorch is imported only to make tensors.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from lru.layers.cell import CellLayer
from lru.layers.gated import GatedRNN
from lru.layers.gru import GRU
from lru.layers.qrnn import QRNN
from lru.layers.stack import Stack
from lru.scan.pooling import GATES

ForgetGate = Literal["admits", "keeps"]


def load_state_dict(
    module: QRNN | GatedRNN | Stack,
    state_dict: Mapping[str, Any],
    *,
    forget_gate: ForgetGate = "admits",
) -> None:
    """Put weights of PyTorch in the place of a layer's or a stack's own.

    Args:
        module: what takes the weights, built with the same widths, windows and biases.
        state_dict: arrays or tensors by name.
        forget_gate: whether F of a QRNN admits the new value, as in `torchqrnn`, or keeps the old
            one, as in its paper.

    Raises:
        ValueError: if the names or shapes are not those of the module, or it has a read-out, which
            would keep its random weights.
    """
    expected = _exported(module, forget_gate)
    for kind, names in (
        ("lacks", expected.keys() - state_dict.keys()),
        ("has, and the module has not,", state_dict.keys() - expected.keys()),
    ):
        if names:
            raise ValueError(f"state_dict {kind} {', '.join(sorted(names))}")
    arrays = {name: _array(value) for name, value in state_dict.items()}
    for name, array in arrays.items():
        if array.shape != expected[name].shape:
            raise ValueError(
                f"{name} has shape {array.shape}, but the module allows {expected[name].shape}"
            )
    for cell, names in _cells(module):
        for own, name in names.items():
            parameter = getattr(cell, own)
            array = arrays[name].T * _signs(cell, forget_gate)
            parameter[...] = jnp.asarray(array.reshape(parameter.shape), parameter[...].dtype)


def state_dict(
    module: QRNN | GatedRNN | Stack,
    *,
    forget_gate: ForgetGate = "admits",
    tensors: bool = False,
) -> dict[str, Any]:
    """The weights of a layer or a stack, as PyTorch names and lays them out.

    Args:
        module: whose weights.
        forget_gate: as in `load_state_dict`.
        tensors: return tensors, for which PyTorch must be installed; else NumPy arrays.

    Raises:
        ValueError: if the module has a read-out, for which PyTorch has no place.
    """
    arrays = _exported(module, forget_gate)
    if not tensors:
        return arrays
    import torch

    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _cells(module: QRNN | GatedRNN | Stack) -> Iterator[tuple[QRNN | GatedRNN, dict[str, str]]]:
    """Every cell, and the names in PyTorch of its parameters."""
    if isinstance(module, CellLayer) and module.readout is not None:
        kind, wide = type(module).__name__, (module.d_model, module.d_hidden)
        raise ValueError(
            f"module {kind}{wide} reads its state of width {wide[1]} out to width {wide[0]}, for "
            f"which PyTorch has no weights: take {kind}Cell{wide} or a stack, which give it out"
        )
    for cell in module.cells if isinstance(module, Stack) else [module]:
        # Without both gates it is an Elman network, which PyTorch has.
        if isinstance(cell, GRU) and cell.use_reset != cell.use_update:
            raise ValueError(
                f"module {type(module).__name__} has use_reset={cell.use_reset} and "
                f"use_update={cell.use_update}, but PyTorch has a GRU with both gates alone"
            )
    if not isinstance(module, Stack):
        yield module, _names(module, "" if isinstance(module, QRNN) else "_l0", "")
        return
    for i, cell in enumerate(module.cells):
        layer, backward = divmod(i, module.n_directions)
        place = f"layers.{layer}." if isinstance(cell, QRNN) else f"_l{layer}"
        yield cell, _names(cell, place, "_reverse" * backward)


def _names(cell: QRNN | GatedRNN, place: str, suffix: str) -> dict[str, str]:
    if isinstance(cell, QRNN):
        own = ["weight"] if cell.bias is None else ["weight", "bias"]
        return {name: f"{place}linear.{name}{suffix}" for name in own}
    own = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]
    return {name: f"{name}{place}{suffix}" for name in own if getattr(cell, name) is not None}


def _exported(module: QRNN | GatedRNN | Stack, forget_gate: ForgetGate) -> dict[str, np.ndarray]:
    arrays = {}
    for cell, names in _cells(module):
        for own, name in names.items():
            array = np.asarray(getattr(cell, own)[...])
            if array.ndim > 1:
                array = array.reshape(-1, array.shape[-1])
            # A copy: arrays of JAX cannot be written to, and PyTorch insists that they can.
            arrays[name] = np.array((array * _signs(cell, forget_gate)).T, order="C")
    return arrays


def _signs(cell: QRNN | GatedRNN, forget_gate: ForgetGate) -> np.ndarray | int:
    """-1 for columns of f, if it means the other share there: 1 - sigmoid(x) = sigmoid(-x)."""
    if forget_gate not in ("admits", "keeps"):
        raise ValueError(f"forget_gate must be 'admits' or 'keeps', got {forget_gate!r}")
    if not isinstance(cell, QRNN) or forget_gate == "keeps":
        return 1
    return np.repeat([-1 if gate == "f" else 1 for gate in GATES[cell.gates]], cell.d_hidden)


def _array(value: Any) -> np.ndarray:
    """NumPy's view of an array or a tensor."""
    if hasattr(value, "detach"):
        # By way of a type that NumPy has and that holds every other one of PyTorch.
        return value.detach().cpu().double().numpy()
    return np.asarray(value)
