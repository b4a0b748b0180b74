"""The quantum network: parameters, state, what it refuses."""

from decimal import Decimal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lru.models import QuantumRNN, quantum_rnn
from lru.scan.quantum import Weights

from .cases import case, names


def network(n_words=4, seed=0, **options):
    return QuantumRNN(n_words, **options, rngs=nnx.Rngs(seed))


def leaves(model):
    return jax.tree.leaves(nnx.state(model, nnx.Param))


@pytest.mark.parametrize(
    ("workspace", "width", "stages", "degree", "count"),
    [
        (5, 3, 1, 3, 837),
        (5, 3, 2, 3, 1162),
        (8, 2, 2, 2, 1212),
        (6, 2, 2, 3, 1292),
        (7, 2, 2, 2, 865),
        (7, 3, 2, 3, 3134),
        (7, 4, 2, 3, 4414),
    ],
)
def test_parameters_are_as_many_as_published(workspace, width, stages, degree, count):
    options = {"workspace": workspace, "stages": stages, "degree": degree}
    shapes = jax.eval_shape(lambda: nnx.state(network(2**width, **options), nnx.Param))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count


@pytest.mark.parametrize("name", names())
def test_parameters_are_those_of_the_recorded_networks(name):
    known = case(name)
    model = network(known.n_words, **known.options)
    assert [array.shape for array in model.weights] == [array.shape for array in known.weights]
    assert sum(leaf.size for leaf in leaves(model)) == known.setting["num_parameters"]


def test_the_draw_follows_its_spreads_and_its_seed():
    options = {"initial_weights_spread": 0.5, "initial_unitaries_spread": 0.0}
    model = network(workspace=6, initial_bias_spread=2.0, **options)
    assert 0.4 < float(jnp.std(model.phi[...])) < 0.6
    assert 1.2 < float(jnp.std(model.theta[...])) < 2.8
    assert not model.rotations[...].any()
    again = network(workspace=6, initial_bias_spread=2.0, **options)
    other = network(workspace=6, initial_bias_spread=2.0, seed=1, **options)
    assert jnp.array_equal(model.phi[...], again.phi[...])
    assert not jnp.array_equal(model.phi[...], other.phi[...])


def test_steps_are_the_sequence_and_start_where_it_ended():
    model = network(workspace=2, stages=1, initial_bias_spread=0.5)
    words = jnp.array([[0, 3, 1], [2, 2, 0]])
    wanted = jnp.array([[1, -1, 0], [3, 2, -1]])
    outcome, last = model(words, wanted)
    state = model.initial_state(2)
    np.testing.assert_array_equal(state, [[1, 0, 0, 0]] * 2)
    for t in range(3):
        at_t, state = model.step(words[:, t], state, wanted[:, t])
        np.testing.assert_allclose(at_t.probabilities, outcome.probabilities[:, t], atol=1e-6)
        np.testing.assert_array_equal(at_t.words, outcome.words[:, t])
    np.testing.assert_allclose(state, last, atol=1e-6)
    seen = model.observe(words, wanted)
    np.testing.assert_allclose(seen["state"][:, -1], last, atol=1e-6)
    np.testing.assert_allclose(seen["probabilities"], outcome.probabilities, atol=1e-6)


def test_words_are_drawn_each_from_the_one_before():
    model = network(workspace=2, stages=1)
    first, key = jnp.array([1, 2]), jax.random.key(5)
    drawn = model.generate(first, 4, key)
    assert drawn.shape == (2, 4)
    np.testing.assert_array_equal(drawn, model.generate(first, 4, key))
    # Post-selected on what was drawn, the same words are read.
    read = jnp.concatenate([first[:, None], drawn[:, :-1]], axis=1)
    outcome, _ = model(read, drawn)
    at_drawn = jnp.take_along_axis(outcome.probabilities, drawn[..., None], axis=-1)
    assert (at_drawn > 0).all()
    assert len(np.unique(model.generate(jnp.zeros(50, int), 4, key), axis=0)) > 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_words": 6}, "n_words must be a power of two, at least 2, got 6"),
        ({"workspace": 0}, "workspace must be at least 1, got 0"),
        ({"stages": -1}, "stages must be at least 0, got -1"),
        ({"order": 0}, "order must be from 1 to 6, got 0"),
        ({"order": 7}, "order must be from 1 to 6, got 7"),
        ({"degree": 0}, "degree must be at least 1, got 0"),
        (
            {"initial_bias_spread": -0.1},
            "initial_bias_spread must be finite and not negative, got -0.1",
        ),
        ({"initial_bias": float("nan")}, "initial_bias must be finite, got nan"),
        ({"dtype": "bfloat16"}, "dtype must be float32 or float64, got 'bfloat16'"),
        ({"dtype": "float64"}, "dtype float64 needs JAX_ENABLE_X64=1 in the environment"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        network(**options)


def test_a_workspace_that_has_no_room_names_one_that_has(monkeypatch):
    monkeypatch.setattr(quantum_rnn, "bytes_of_device", lambda: 2**20)
    # Tables of 13 sources, in and beside the sums of 13 + 78 weights.
    needed = 4 * 2**13 * (13 + 78 + 2 * 12 * 3 + 2 * 2)
    with pytest.raises(ValueError, match=r"^workspace 12 ") as refused:
        network(workspace=12)
    assert f"needs {Decimal(needed):.2e} bytes" in str(refused.value)
    assert str(refused.value).endswith("there are 1.05e+6; workspace 9 would fit")
    network(workspace=9)
    with pytest.raises(ValueError, match=r"^workspace 10 "):
        network(workspace=10)
    # Of more digits than Python writes.
    with pytest.raises(ValueError, match=r"^workspace 20000 .* workspace 9 would fit$"):
        network(workspace=20_000)


def test_calls_refuse_other_shapes_and_types():
    model = network(workspace=2)
    words = jnp.zeros((2, 3), int)
    for arguments, message in (
        ((words[0],), r"words have shape \(3,\) and dtype"),
        ((words.astype(float),), "dtype float32, but integers"),
        ((words, words[:, :2]), r"postselected has shape \(2, 2\), but \(2, 3\) is allowed"),
        ((words, words, model.initial_state(3)), r"state has shape \(3, 4\), but \(2, 4\)"),
    ):
        with pytest.raises(ValueError, match=message):
            QuantumRNN.__call__.__wrapped__(model, *arguments)


def test_float64_is_made_of_it():
    with jax.enable_x64(True):
        model = network(workspace=2, dtype="float64")
        assert {array.dtype for array in model.weights} == {jnp.dtype("float64")}
        assert model(jnp.zeros((1, 2), int))[0].probabilities.dtype == jnp.float64
    assert isinstance(model.weights, Weights)
