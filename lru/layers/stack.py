"""Cells on top of one another, each reading the outputs of the one below.

`CellStack` is the body of AWD-LSTM (Merity et al. 2017, arXiv 1708.02182) and of language models of
QRNNs; `QRNNStack`, `LSTMStack`, `GRUStack` and `ElmanStack` are drop-ins for `torch.nn.LSTM`. Two
directions of time join after every layer, as there, or are two stacks that meet at the end. In a
densely connected stack each layer also reads what the layer below it read (Huang et al. 2017, arXiv
1608.06993; of QRNNs: arXiv 1611.01576, section 3.1).
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Inexact, Integer, Key

from lru.layers.base import NoStepError, noise
from lru.layers.cell import CellLayer
from lru.layers.dropout import drop_features, drop_weights
from lru.layers.elman import ElmanCell
from lru.layers.gru import GRUCell
from lru.layers.lstm import LSTMCell
from lru.layers.qrnn import QRNNCell
from lru.scan.methods import step_counts

# Which directions of time pass through the layers together, by name.
DIRECTIONS = {"forward": [[0]], "layers": [[0, 1]], "stacks": [[0], [1]]}


class CellStack(nnx.Module):
    """Layers of cells, and dropout between them; the state is a list of those of all cells.

    Attributes:
        d_model: width D of the inputs.
        cells: all cells, layer by layer and in each the forward direction first.
        d_output: width M of the outputs.
        n_directions: of time, 1 or 2.
    """

    def __init__(
        self,
        cell_type: type[CellLayer],
        d_model: int,
        widths: Sequence[int],
        *,
        directions: str = "forward",
        dense: bool = False,
        dropout: float = 0.0,
        weight_dropout: float = 0.0,
        locked_dropout: bool = False,
        rngs: nnx.Rngs,
        **options: Any,
    ):
        """Build the cells.

        Args:
            cell_type: class of the cells.
            d_model: width D of the inputs.
            widths: width N of the state of each layer.
            directions: forward; layers for both directions, side by side after every layer; stacks
                for one stack in each direction, side by side at the end.
            dense: let each layer but the first read the inputs of the layer below beside its
                outputs.
            dropout: rate of dropout on the outputs of each layer but the last.
            weight_dropout: rate of dropout on the main weights of each cell.
            locked_dropout: draw one mask of outputs for all steps of a sequence.
            rngs: source of the initial parameters.
            options: those of the cells; a sequence has one value for each layer.

        Raises:
            ValueError: if a value is out of range.
        """
        if directions not in DIRECTIONS:
            raise ValueError(f"directions must be one of {', '.join(DIRECTIONS)}, got {directions}")
        for name, rate in (("dropout", dropout), ("weight_dropout", weight_dropout)):
            if not 0 <= rate < 1:
                raise ValueError(f"{name} must be in [0, 1), got {rate}")
        if not widths:
            raise ValueError("widths must have at least one layer, got none")
        self.d_model = d_model
        self.flows = tuple(tuple(flow) for flow in DIRECTIONS[directions])
        self.n_directions = sum(len(flow) for flow in self.flows)
        self.dense = dense
        self.dropout, self.weight_dropout = dropout, weight_dropout
        self.locked_dropout = locked_dropout
        cells, d_input, joined = [], d_model, len(self.flows[0])
        for layer, width in enumerate(widths):
            chosen = {k: _of_layer(k, v, layer, len(widths)) for k, v in options.items()}
            for _ in range(self.n_directions):
                cells.append(cell_type(d_input, width, rngs=rngs, **chosen))
            d_input = joined * width + (d_input if dense else 0)
        self.cells = nnx.List(cells)
        self.d_output = self.n_directions * widths[-1]

    def initial_state(self, batch_size: int) -> Any:
        """The state of every cell before the first step."""
        return [cell.initial_state(batch_size) for cell in self.cells]

    def step(self, x_t: Float[Array, "B D"], state: Any) -> tuple[Float[Array, "B M"], Any]:
        """Advance one step, without dropout.

        Raises:
            NoStepError: if the stack runs in both directions.
        """
        if self.n_directions > 1:
            raise NoStepError("a bidirectional stack has no step mode: its output needs the future")
        # Not `step` of the layers, whose outputs have the width of their inputs.
        y, state = self(x_t[:, None], state)
        return y[:, 0], state

    def __call__(
        self,
        x: Float[Array, "B T D"],
        state: Any = None,
        *,
        lengths: Integer[Array, " B"] | None = None,
        resets: Bool[Array, "B T"] | None = None,
        key: Key[Array, ""] | None = None,
    ) -> tuple[Float[Array, "B T M"], Any]:
        """Run all layers.

        Args:
            x: inputs.
            state: where to start; None for `initial_state`.
            lengths: number of valid steps of each row; outputs at padding are zero.
            resets: True where a row starts afresh.
            key: source of dropout and of the noise of the cells; None for none.

        Returns:
            Outputs of the last layer, and the state after the last valid step.

        Raises:
            ValueError: if an argument has the wrong shape.
        """
        return self._run(x, state, lengths, resets, key, None)

    def observe(
        self,
        x: Float[Array, "B T D"],
        state: Any = None,
        *,
        lengths: Integer[Array, " B"] | None = None,
        resets: Bool[Array, "B T"] | None = None,
    ) -> list[dict[str, Inexact[Array, "B T N"]]]:
        """States and gates inside each cell during a call without dropout, by name."""
        observed: list[Any] = [None] * len(self.cells)
        self._run(x, state, lengths, resets, None, observed)
        return observed

    def _run(
        self,
        x: Float[Array, "B T D"],
        state: list[Any] | None,
        lengths: Integer[Array, " B"] | None,
        resets: Bool[Array, "B T"] | None,
        key: Key[Array, ""] | None,
        observed: list[Any] | None,
    ) -> tuple[Float[Array, "B T M"], list[Any]]:
        """Run all layers; what happens inside goes into `observed`, if that is not None."""
        states = [None] * len(self.cells) if state is None else state
        lengths = step_counts(lengths, x.shape[1])
        after: list[Any] = [None] * len(self.cells)
        outputs = []
        for flow in self.flows:
            seen = h = x
            for first in range(0, len(self.cells), self.n_directions):
                if first > 0:
                    mask_key, _, _ = _keys(key, first + flow[0])
                    h = drop_features(h, self.dropout, mask_key, locked=self.locked_dropout)
                    seen = jnp.concatenate([seen, h], axis=-1) if self.dense else h
                sides = []
                for direction in flow:
                    at = first + direction
                    cell, before = self.cells[at], states[at]
                    _, weight_key, noise_key = _keys(key, at)
                    options = {"lengths": lengths, "resets": resets, "reverse": direction == 1}
                    if observed is not None:
                        observed[at] = cell.observe(seen, before, **options)
                    dropped = drop_weights(cell, self.weight_dropout, weight_key)
                    y, after[at] = dropped(seen, before, **options, **noise(cell, noise_key))
                    sides.append(y)
                h = jnp.concatenate(sides, axis=-1) if len(sides) > 1 else sides[0]
            outputs.append(h)
        return jnp.concatenate(outputs, axis=-1) if len(outputs) > 1 else outputs[0], after


class Stack(CellStack):
    """Base of the drop-ins for an LSTM.

    The state is that of one cell with all cells in each of its fields: vectors of one width as an
    array [L, B, N], or [2 L, B, N] in two directions; vectors of several widths, and all windows,
    as a tuple.
    """

    cell_type: ClassVar[type[CellLayer]]

    def __init__(self, d_model: int, widths: Sequence[int], *, rngs: nnx.Rngs, **options: Any):
        """Build the cells; arguments are those of `CellStack`."""
        super().__init__(self.cell_type, d_model, widths, rngs=rngs, **options)

    def initial_state(self, batch_size: int) -> Any:
        """Zeros."""
        return _joined(super().initial_state(batch_size))

    def _run(self, x: Float[Array, "B T D"], state: Any, *arguments: Any) -> tuple[Array, Any]:
        y, after = super()._run(x, self._of_cells(x, state), *arguments)
        return y, _joined(after)

    def _of_cells(self, x: Float[Array, "B T D"], state: Any) -> list[Any] | None:
        """The state of each cell."""
        if state is None:
            return None
        start = self.initial_state(x.shape[0])
        given, allowed = (jax.tree.map(jnp.shape, tree) for tree in (state, start))
        if given != allowed:
            raise ValueError(f"state has shape {given}, but x {x.shape} allows {allowed}")
        # A plain tuple, as PyTorch has it, equals the state's own kind.
        return [type(start)(*(field[i] for field in state)) for i in range(len(self.cells))]


def _of_layer(name: str, value: Any, layer: int, n_layers: int) -> Any:
    if not isinstance(value, list | tuple):
        return value
    if len(value) != n_layers:
        raise ValueError(f"{name} has {len(value)} values, but there are {n_layers} layers")
    return value[layer]


def _keys(key: Key[Array, ""] | None, at: int) -> Any:
    """Keys of a cell: of the mask in front of it, of its weights and of its noise."""
    return (None,) * 3 if key is None else jax.random.split(jax.random.fold_in(key, at), 3)


def _joined(states: list[Any]) -> Any:
    """The states of all cells as one."""

    def field(values: tuple) -> Any:
        vectors = all(value is not None and value.ndim == 2 for value in values)
        alike = vectors and len({value.shape for value in values}) == 1
        return jnp.stack(values) if alike else values

    return type(states[0])(*(field(values) for values in zip(*states, strict=True)))


class QRNNStack(Stack):
    """Quasi-recurrent layers; c of the state is what `torchqrnn` returns beside the outputs."""

    cell_type = QRNNCell


class LSTMStack(Stack):
    """LSTM layers; the state is (h, c) as in `torch.nn.LSTM`."""

    cell_type = LSTMCell


class GRUStack(Stack):
    """GRU layers; the state is (h,)."""

    cell_type = GRUCell


class ElmanStack(Stack):
    """Elman layers; the state is (h,)."""

    cell_type = ElmanCell
