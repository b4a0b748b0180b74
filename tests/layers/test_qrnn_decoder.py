"""The decoder with attention against its recorded equations."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lru.layers.qrnn_decoder import QRNNDecoder, attend

RECORDED = np.load(Path(__file__).parents[1] / "fixtures" / "qrnn_reference.npz")
CASE = "derived/attn_decoder/"
ARRAYS = {k.removeprefix(CASE): jnp.asarray(RECORDED[k]) for k in RECORDED if k.startswith(CASE)}


def recorded_decoder():
    decoder = QRNNDecoder(3, 4, 4, attention=True, biases=0, rngs=nnx.Rngs(0))
    # There row j belongs to the input K - 1 - j steps back.
    kernels = [ARRAYS[f"W{gate}"][::-1] for gate in "zfo"]
    decoder.cell.weight[...] = jnp.concatenate(kernels, axis=-1)
    decoder.weight_summary[...] = jnp.concatenate([ARRAYS[f"V{gate}"] for gate in "zfo"], axis=-1)
    decoder.weight_attended[...] = ARRAYS["Wk"]
    decoder.weight_state[...] = ARRAYS["Wc"]
    return decoder


def test_equals_the_recorded_equations():
    h, state = recorded_decoder()(ARRAYS["x"], ARRAYS["hT"], ARRAYS["enc"])
    np.testing.assert_allclose(h, ARRAYS["h"], rtol=0, atol=2e-6)
    np.testing.assert_allclose(state.c, ARRAYS["c"][:, -1], rtol=0, atol=2e-6)
    attended, weights = attend(ARRAYS["c"], ARRAYS["enc"], None)
    np.testing.assert_allclose(weights, ARRAYS["alpha"], rtol=0, atol=2e-6)
    np.testing.assert_allclose(attended, ARRAYS["k"], rtol=0, atol=2e-6)


def test_padding_of_both_sequences_changes_nothing():
    decoder = recorded_decoder()
    lengths, memory_lengths = jnp.array([5, 2]), jnp.array([6, 3])
    spoilt = [
        jnp.where((jnp.arange(x.shape[1]) < n[:, None])[..., None], x, jnp.nan)
        for x, n in ((ARRAYS["x"], lengths), (ARRAYS["enc"], memory_lengths))
    ]

    def run(x, memory):
        options = {"lengths": lengths, "memory_lengths": memory_lengths}
        return decoder(x, ARRAYS["hT"], memory, **options)[0]

    size = jax.jit(jax.value_and_grad(lambda *arrays: jnp.sum(run(*arrays) ** 2), (0, 1)))
    h, gradient = size(*spoilt)
    assert np.isfinite(h)
    assert all(np.all(np.isfinite(g)) for g in gradient)
    alone, _ = decoder(ARRAYS["x"][1:, :2], ARRAYS["hT"][1:], ARRAYS["enc"][1:, :3])
    np.testing.assert_allclose(run(*spoilt)[1, :2], alone[0], rtol=0, atol=1e-6)
    assert not np.any(run(*spoilt)[1, 2:])


@pytest.mark.parametrize("gates", ["f", "ifo"])
def test_attention_is_defined_for_one_pooling(gates):
    with pytest.raises(ValueError, match=f"attention is defined for the gates fo, got {gates}"):
        QRNNDecoder(3, 4, 4, attention=True, gates=gates, rngs=nnx.Rngs(0))
