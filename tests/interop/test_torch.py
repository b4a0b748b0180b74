"""Weights there and back, and what does not fit."""

import numpy as np
import pytest
from flax import nnx

from lru.interop.torch import load_state_dict, state_dict
from lru.layers import (
    GRU,
    LSTM,
    ElmanStack,
    GRUStack,
    LSTMCell,
    LSTMStack,
    QRNNCell,
    QRNNStack,
)

D, N = 3, 4


def random_like(arrays):
    rng = np.random.default_rng(0)
    return {k: rng.standard_normal(v.shape).astype(np.float32) for k, v in arrays.items()}


@pytest.mark.parametrize(
    "module",
    [
        QRNNStack(D, [N, 5], window=[3, 1], gates="ifo", rngs=nnx.Rngs(0)),
        QRNNStack(D, [N, N], directions="layers", biases=0, rngs=nnx.Rngs(0)),
        QRNNCell(D, N, gates="f", rngs=nnx.Rngs(0)),
        LSTMStack(D, [N, N], directions="layers", rngs=nnx.Rngs(0)),
        GRUStack(D, [N], biases=1, rngs=nnx.Rngs(0)),
        GRU(N, N, rngs=nnx.Rngs(0)),
        ElmanStack(D, [N, N], rngs=nnx.Rngs(0)),
    ],
    ids=["qrnn", "bidirectional", "cell", "lstm", "gru", "layer", "elman"],
)
@pytest.mark.parametrize("forget_gate", ["admits", "keeps"])
def test_weights_go_there_and_back(module, forget_gate):
    given = random_like(state_dict(module))
    load_state_dict(module, given, forget_gate=forget_gate)
    returned = state_dict(module, forget_gate=forget_gate)
    assert list(returned) == list(given)
    for name, array in returned.items():
        np.testing.assert_array_equal(array, given[name], err_msg=name)


def test_names_and_shapes_are_those_of_the_package():
    shapes = {
        name: array.shape
        for name, array in state_dict(QRNNStack(D, [N, 5], rngs=nnx.Rngs(0))).items()
    }
    assert shapes == {
        "layers.0.linear.weight": (3 * N, 2 * D),
        "layers.0.linear.bias": (3 * N,),
        "layers.1.linear.weight": (15, 2 * N),
        "layers.1.linear.bias": (15,),
    }


def test_the_forget_gate_alone_changes_its_sign():
    cell = QRNNCell(D, N, rngs=nnx.Rngs(0))
    admits, keeps = (state_dict(cell, forget_gate=way) for way in ("admits", "keeps"))
    signs = np.repeat([1, -1, 1], N)
    np.testing.assert_array_equal(admits["linear.bias"], keeps["linear.bias"] * signs)
    np.testing.assert_array_equal(admits["linear.weight"], keeps["linear.weight"] * signs[:, None])


def test_tensors_are_taken_and_given():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    module = torch.nn.GRU(N, N)
    layer = GRU(N, N, rngs=nnx.Rngs(0))
    load_state_dict(layer, module.state_dict())
    module.load_state_dict(state_dict(layer, tensors=True))
    load_state_dict(layer, {k: v.bfloat16() for k, v in module.state_dict().items()})


def test_a_read_out_has_no_place_there():
    message = r"^module LSTM\(3, 4\) reads its state of width 4 out .* take LSTMCell\(3, 4\) or"
    layer, cell = LSTM(D, N, rngs=nnx.Rngs(0)), LSTMCell(D, N, rngs=nnx.Rngs(1))
    with pytest.raises(ValueError, match=message):
        state_dict(layer)
    with pytest.raises(ValueError, match=message):
        load_state_dict(layer, state_dict(cell))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bias_hh_l0": None}, "state_dict lacks bias_hh_l0$"),
        ({"weight_hr_l0": np.zeros(1)}, "state_dict has, and the module has not, weight_hr_l0$"),
        ({"weight_ih_l0": np.zeros((9, D))}, r"weight_ih_l0 has shape \(9, 3\).* allows \(16, 3\)"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(change, message):
    layer = LSTMCell(D, N, rngs=nnx.Rngs(0))
    cell = LSTMStack(D, [N], rngs=nnx.Rngs(0))
    given = {k: v for k, v in (state_dict(cell) | change).items() if v is not None}
    before = np.array(layer.weight_hh[...])
    with pytest.raises(ValueError, match=message):
        load_state_dict(layer, given)
    np.testing.assert_array_equal(layer.weight_hh[...], before)


def test_an_unknown_convention_is_refused(monkeypatch):
    import jaxtyping

    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match="forget_gate must be 'admits' or 'keeps', got 'both'"):
        state_dict(QRNNCell(D, N, rngs=nnx.Rngs(0)), forget_gate="both")
