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
    without_padding,
    zeros,
)
from lru.registry import import_submodules

import_submodules(sys.modules[__name__])

from lru.layers.bidirectional import Bidirectional  # noqa: E402
from lru.layers.convolved import Convolved, ConvolvedState  # noqa: E402
from lru.layers.deltanet import DeltaNet, DeltaState  # noqa: E402
from lru.layers.diagonal import DiagonalRNN  # noqa: E402
from lru.layers.elman import Elman, ElmanCell, ElmanState  # noqa: E402
from lru.layers.gated_deltanet import GatedDeltaNet  # noqa: E402
from lru.layers.gru import GRU, GRUCell, GRUState  # noqa: E402
from lru.layers.hgrn import HGRN  # noqa: E402
from lru.layers.indrnn import IndRNN, IndRNNCell  # noqa: E402
from lru.layers.linear_rnn import LinearRNN  # noqa: E402
from lru.layers.linoss import DLinOSS, LinOSS, OscillatorState  # noqa: E402
from lru.layers.lru import LRU  # noqa: E402
from lru.layers.lstm import LSTM, LSTMCell, LSTMState  # noqa: E402
from lru.layers.mamba import Mamba  # noqa: E402
from lru.layers.mamba2 import Mamba2  # noqa: E402
from lru.layers.mingru import MinGRU, MinGRUCell  # noqa: E402
from lru.layers.minlstm import MinLSTM, MinLSTMCell  # noqa: E402
from lru.layers.mlstm import MLSTM, MLSTMState  # noqa: E402
from lru.layers.para_gru import ParaGRU, ParaGRUState  # noqa: E402
from lru.layers.para_lstm import ParaLSTM, ParaLSTMState  # noqa: E402
from lru.layers.qrnn import QRNN, QRNNCell, QRNNState  # noqa: E402
from lru.layers.rg_lru import RGLRU, RGLRUCell, RGLRUState  # noqa: E402
from lru.layers.s4d import S4D  # noqa: E402
from lru.layers.s5 import S5  # noqa: E402
from lru.layers.selective import SelectiveState  # noqa: E402
from lru.layers.slstm import SLSTM, SLSTMState  # noqa: E402
from lru.layers.sru import SRU, SRUCell  # noqa: E402
from lru.layers.stack import ElmanStack, GRUStack, LSTMStack, QRNNStack  # noqa: E402

__all__ = [
    "GRU",
    "HGRN",
    "LAYERS",
    "LRU",
    "LSTM",
    "MLSTM",
    "QRNN",
    "RGLRU",
    "S4D",
    "S5",
    "SLSTM",
    "SRU",
    "Bidirectional",
    "Convolved",
    "ConvolvedState",
    "DLinOSS",
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
    "IndRNN",
    "IndRNNCell",
    "LSTMCell",
    "LSTMStack",
    "LSTMState",
    "LinOSS",
    "LinearRNN",
    "MLSTMState",
    "Mamba",
    "Mamba2",
    "MinGRU",
    "MinGRUCell",
    "MinLSTM",
    "MinLSTMCell",
    "NoStepError",
    "OscillatorState",
    "ParaGRU",
    "ParaGRUState",
    "ParaLSTM",
    "ParaLSTMState",
    "QRNNCell",
    "QRNNStack",
    "QRNNState",
    "RGLRUCell",
    "RGLRUState",
    "RecurrentLayer",
    "RecurrentParam",
    "SLSTMState",
    "SRUCell",
    "SelectiveState",
    "known_compute_dtype",
    "layer_options",
    "make_layer",
    "reset_marks",
    "resolve_options",
    "without_padding",
    "zeros",
]
