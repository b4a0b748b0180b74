"""Written and loaded back: programs give what the model gives, at every batch, length and step."""

import json
import re

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lru.dataloaders import Card
from lru.export import load
from lru.export.artifact import CARD, STEP, WHOLE
from lru.export.writer import PLATFORMS, write_model
from lru.layers import LAYERS
from lru.models import ModelConfig, QuantumRNN
from lru.scan import DENSE_METHODS, LINEAR_METHODS
from lru.tasks import TASKS

B, T, V = 3, 6, 7
TOKEN = jax.ShapeDtypeStruct((), jnp.int32)
LENGTHS = jnp.array([T, 2, 0])


def tokens(rows=B, steps=T):
    return jax.random.randint(jax.random.key(0), (rows, steps), 0, V)


@nnx.jit
def run(model, inputs, lengths):
    return model(inputs, lengths=lengths)[0]


def assert_close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def assert_portable(folder):
    """The programs are for every platform, and call nothing of this machine."""
    for name in (WHOLE, STEP):
        program = jax.export.deserialize(bytearray((folder / name).read_bytes()))
        assert program.platforms == PLATFORMS == ("cpu", "cuda", "tpu")
        # The one call there may be checks shapes, and is resolved before anything is compiled.
        called = set(re.findall(r"custom_call @(\w+)", program.mlir_module()))
        assert called <= {"shape_assertion"}


def stream(exported, inputs):
    """The outputs after every step [B, T, ...]."""
    state, outputs = exported.initial_state(len(inputs)), []
    for t in range(inputs.shape[1]):
        y, state = exported.step(inputs[:, t], state)
        outputs.append(y)
    return jnp.stack(outputs, axis=1)


@pytest.mark.parametrize("layer", LAYERS)
def test_programs_equal_the_model(layer, make_classifier, tmp_path):
    model = make_classifier(model=layer)
    write_model(tmp_path, model, TOKEN)
    assert_portable(tmp_path)
    exported = load(tmp_path)
    assert_close(exported.whole(tokens(), LENGTHS), run(model, tokens(), LENGTHS))
    # Another batch and another length: both are free.
    other = tokens(2, 9)
    scores = stream(exported, other)
    for t in (0, 8):
        lengths = jnp.full(2, t + 1)
        assert_close(scores[:, t], run(model, other, lengths))
        assert_close(exported.whole(other, lengths), scores[:, t])


@pytest.mark.parametrize("pooling", ["last", "none"])
def test_steps_follow_the_pooling(pooling, make_classifier, tmp_path):
    model = make_classifier(pooling=pooling)
    write_model(tmp_path, model, TOKEN)
    exported = load(tmp_path)
    whole = exported.whole(tokens(), jnp.full(B, T))
    assert_close(whole, run(model, tokens(), jnp.full(B, T)))
    steps = stream(exported, tokens())
    assert_close(whole, steps if pooling == "none" else steps[:, -1])


def test_bytes_are_scaled_and_normalised_inside(tmp_path):
    card = Card(
        name="toy",
        version=1,
        kind="values",
        n_classes=2,
        n_features=3,
        targets="class",
        max_length=T,
        mean=[0.2, 0.5, 0.1],
        std=[0.3, 0.0, 0.2],
    )
    config = ModelConfig(n_layers=1, d_model=4, d_hidden=3)
    task = TASKS["classification"](card, config)
    model = task.build_model(nnx.Rngs(0))
    pixel = jax.ShapeDtypeStruct((3,), jnp.uint8)
    described = write_model(tmp_path, model, pixel, prepare=task.prepare)
    assert described["whole"]["inputs"] == {"shape": ["batch", "time", 3], "dtype": "uint8"}
    images = np.random.default_rng(0).integers(256, size=(B, T, 3), dtype=np.uint8)
    exported, lengths = load(tmp_path), jnp.full(B, T)
    expected = run(model, (images / 255 - card.mean) / np.array([0.3, 1.0, 0.2]), lengths)
    assert_close(exported.whole(images, lengths), expected)
    assert_close(stream(exported, jnp.asarray(images))[:, -1], expected)


def test_without_a_step_the_whole_is_written_and_the_reason_is_kept(make_classifier, tmp_path):
    model = make_classifier(body_options={"bidirectional": True})
    write_model(tmp_path, model, TOKEN)
    exported = load(tmp_path)
    assert_close(exported.whole(tokens(), LENGTHS), run(model, tokens(), LENGTHS))
    for call in (lambda: exported.initial_state(B), lambda: exported.step(tokens()[:, 0], [])):
        with pytest.raises(ValueError, match="without a step: a bidirectional layer has no step"):
            call()
    assert not (tmp_path / STEP).exists()


def test_a_model_whose_outputs_are_no_array_is_refused(tmp_path):
    model = QuantumRNN(4, workspace=1, stages=0, rngs=nnx.Rngs(0))
    message = "^model must give an array to be exported, but QuantumRNN gives Measured$"
    with pytest.raises(ValueError, match=message):
        write_model(tmp_path / "out", model, TOKEN)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("layer", "method"),
    [("rnn", method) for method in DENSE_METHODS]
    # A layer for each of the scans that are, or contain, a linear one.
    + [
        (name, method)
        for name in ("lru", "linoss", "s4d", "mingru", "qrnn", "mamba")
        for method in LINEAR_METHODS
    ],
)
def test_no_scan_method_makes_programs_for_this_machine_alone(
    layer, method, make_classifier, tmp_path
):
    model = make_classifier(model=layer, n_layers=1, options={"scan_method": method})
    write_model(tmp_path, model, TOKEN)
    assert_portable(tmp_path)


def test_programs_name_no_files_of_this_machine(make_classifier, tmp_path):
    write_model(tmp_path, make_classifier(), TOKEN)
    for name in (WHOLE, STEP):
        assert b".py" not in (tmp_path / name).read_bytes()


def test_the_card_describes_the_programs(make_classifier, tmp_path):
    card = write_model(str(tmp_path), make_classifier(), TOKEN, facts={"dataset": "toy"})
    assert json.loads((tmp_path / CARD).read_text()) == json.loads(json.dumps(card))
    assert card["dataset"] == "toy"
    assert card["versions"]["jax"] == jax.__version__
    assert card["whole"] == {
        "inputs": {"shape": ["batch", "time"], "dtype": "int32"},
        "lengths": {"shape": ["batch"], "dtype": "int32"},
        "outputs": {"shape": ["batch", 5], "dtype": "float32"},
    }
    assert card["step"]["state"] == [
        {"shape": ["batch", 6], "dtype": "complex64", "name": "blocks/0"},
        {"shape": ["batch", 6], "dtype": "complex64", "name": "blocks/1"},
        {"shape": ["batch", 4], "dtype": "float32", "name": "pooled/features"},
        {"shape": ["batch"], "dtype": "int32", "name": "pooled/steps"},
    ]
