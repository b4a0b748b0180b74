"""Recurrent layers behind one contract (`base.py`), one recurrence a file."""

import sys

from lru.layers.base import (
    LAYERS,
    NoStepError,
    RecurrentLayer,
    RecurrentParam,
    known_compute_dtype,
    layer_options,
    make_layer,
    reset_marks,
    resolve_options,
    zeros,
)
from lru.registry import import_submodules

import_submodules(sys.modules[__name__])

from lru.layers.bidirectional import Bidirectional  # noqa: E402
from lru.layers.cell import without_padding  # noqa: E402
from lru.layers.deltanet import DeltaNet, DeltaState  # noqa: E402
from lru.layers.diagonal import DiagonalRNN  # noqa: E402
from lru.layers.elman import Elman, ElmanCell, ElmanState  # noqa: E402
from lru.layers.gated_deltanet import GatedDeltaNet  # noqa: E402
from lru.layers.gru import GRU, GRUCell, GRUState  # noqa: E402
from lru.layers.linear_rnn import LinearRNN  # noqa: E402
from lru.layers.lru import LRU  # noqa: E402
from lru.layers.lstm import LSTM, LSTMCell, LSTMState  # noqa: E402
from lru.layers.mamba import Mamba  # noqa: E402
from lru.layers.mamba2 import Mamba2  # noqa: E402
from lru.layers.mlstm import MLSTM, MLSTMState  # noqa: E402
from lru.layers.qrnn import QRNN, QRNNCell, QRNNState  # noqa: E402
from lru.layers.selective import SelectiveState  # noqa: E402
from lru.layers.stack import ElmanStack, GRUStack, LSTMStack, QRNNStack  # noqa: E402

__all__ = [
    "GRU",
    "LAYERS",
    "LRU",
    "LSTM",
    "MLSTM",
    "QRNN",
    "Bidirectional",
    "DeltaNet",
    "DeltaState",
    "DiagonalRNN",
    "Elman",
    "ElmanCell",
    "ElmanStack",
    "ElmanState",
    "GRUCell",
    "GRUStack",
    "GRUState",
    "GatedDeltaNet",
    "LSTMCell",
    "LSTMStack",
    "LSTMState",
    "LinearRNN",
    "MLSTMState",
    "Mamba",
    "Mamba2",
    "NoStepError",
    "QRNNCell",
    "QRNNStack",
    "QRNNState",
    "RecurrentLayer",
    "RecurrentParam",
    "SelectiveState",
    "known_compute_dtype",
    "layer_options",
    "make_layer",
    "reset_marks",
    "resolve_options",
    "without_padding",
    "zeros",
]
