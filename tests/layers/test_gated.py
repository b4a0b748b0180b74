"""LSTM, GRU and Elman beside those of PyTorch, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lru.interop.torch import load_state_dict
from lru.layers import GRU, LSTM, Elman, ElmanStack, GRUStack, LSTMStack

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
B, T, D, N = 3, 7, 5, 6


TOLERANCES = {"float32": 2e-6, "float64": 1e-14}


@pytest.fixture
def dtype(request):
    """The name of a type of floats, which is enabled."""
    with jax.enable_x64(request.param == "float64"):
        yield request.param


@pytest.mark.parametrize(
    ("bias", "dtype"),
    [(True, "float32"), (False, "float32"), (True, "float64")],
    indirect=["dtype"],
)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(
    ("peer", "stack"),
    [(torch.nn.LSTM, LSTMStack), (torch.nn.GRU, GRUStack), (torch.nn.RNN, ElmanStack)],
    ids=["lstm", "gru", "elman"],
)
def test_equals_that_of_torch(peer, stack, bidirectional, bias, dtype):
    """Outputs, last states and all gradients, with padding."""
    torch.manual_seed(0)
    module = peer(D, N, 2, bias=bias, bidirectional=bidirectional, batch_first=True)
    module.to(getattr(torch, dtype))
    model = stack(
        D,
        [N, N],
        directions="layers" if bidirectional else "forward",
        biases=2 if bias else 0,
        rngs=nnx.Rngs(0),
    )
    nnx.update(model, jax.tree.map(lambda leaf: leaf.astype(dtype), nnx.state(model)))
    load_state_dict(model, module.state_dict())
    rng = np.random.default_rng(0)
    x, weights = (rng.standard_normal((B, T, width), dtype) for width in (D, 1))
    layers = 4 if bidirectional else 2
    start = tuple(rng.standard_normal((layers, B, N), dtype) for _ in model.initial_state(B))
    lengths = np.array([T, 4, 1])

    tensors = [torch.tensor(a, requires_grad=True) for a in (x, *start)]
    given = tuple(tensors[1:]) if len(start) == 2 else tensors[1]
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        tensors[0], torch.tensor(lengths), batch_first=True
    )
    out, last = module(packed, given)
    out, _ = torch.nn.utils.rnn.pad_packed_sequence(out, batch_first=True)
    last = last if isinstance(last, tuple) else (last,)
    (sum((s**2).sum() for s in last) + (out * torch.tensor(weights)).sum()).backward()

    graphdef, params = nnx.split(model)

    @jax.jit
    def run(params, x, start):
        def loss(params, x, start):
            y, state = nnx.merge(graphdef, params)(
                x, type(model.initial_state(B))(*start), lengths=jnp.asarray(lengths)
            )
            return jnp.sum(y * weights) + sum(jnp.sum(s**2) for s in state), (y, state)

        return jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)(params, x, start)

    (_, (y, state)), (dparams, dx, dstart) = run(params, x, start)
    tolerance = TOLERANCES[dtype]
    for a, e in zip((y, *state), (out, *last), strict=True):
        np.testing.assert_allclose(a, e.detach(), rtol=0, atol=tolerance)
    for a, e in zip((dx, *dstart), tensors, strict=True):
        np.testing.assert_allclose(a, e.grad, rtol=0, atol=10 * tolerance)
    load_state_dict(model, {name: p.grad for name, p in module.named_parameters()})
    jax.tree.map(
        lambda a, e: np.testing.assert_allclose(a, e, rtol=0, atol=10 * tolerance),
        dparams,
        nnx.state(model),
    )


@pytest.mark.parametrize("layer", [LSTM, GRU, Elman])
def test_a_number_of_biases_that_no_one_has_is_refused(layer):
    with pytest.raises(ValueError, match="biases must be 0, 1 or 2, got 3"):
        layer(D, N, biases=3, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("layer", [LSTM, GRU, Elman])
def test_parameters_start_as_those_of_torch_do(layer):
    drawn = layer(D, 100, rngs=nnx.Rngs(0))
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        values = getattr(drawn, name)[...]
        assert 0.09 < np.abs(values).max() <= 0.1
        assert np.std(values) == pytest.approx(0.1 / 3**0.5, rel=0.1)
