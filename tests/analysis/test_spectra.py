"""Eigenvalues of a model, by layer and direction."""

import dataclasses

import numpy as np
import pytest
from flax import nnx

from lru.analysis.spectra import eigenvalues
from lru.layers import LAYERS, RecurrentLayer
from lru.models import Classifier, ModelConfig

TINY = ModelConfig(n_layers=2, d_model=2, d_hidden=4)


def model(**changes):
    config = dataclasses.replace(TINY, **changes)
    return Classifier(config, 2, vocab_size=3, rngs=nnx.Rngs(0))


WITH_A_SPECTRUM = ["d-linoss", "diag-rnn", "linoss", "lru", "rnn", "s4d", "s5"]


@pytest.mark.parametrize("name", WITH_A_SPECTRUM)
def test_layers_are_named_and_told_apart(name):
    built = model(model=name)
    spectra = eigenvalues(built)
    assert list(spectra) == ["layer 0", "layer 1"]
    for block, spectrum in zip(built.encoder.blocks, spectra.values(), strict=True):
        np.testing.assert_array_equal(spectrum, block.recurrence.eigenvalues()[""])
        assert spectrum.shape == (8 if "linoss" in name else 4,)


@pytest.mark.parametrize("name", [name for name in LAYERS if name not in WITH_A_SPECTRUM])
def test_layers_whose_recurrence_varies_have_none(name):
    assert eigenvalues(model(model=name)) == {}


def test_both_directions_are_named():
    built = model(body_options={"bidirectional": True})
    spectra = eigenvalues(built)
    assert list(spectra) == [f"layer {i} {way}" for i in (0, 1) for way in ("forward", "backward")]
    np.testing.assert_array_equal(
        spectra["layer 1 backward"],
        built.encoder.blocks[1].recurrence.backward.eigenvalues()[""],
    )


def test_more_than_ten_layers_stay_in_order():
    built = model(n_layers=11)
    spectra = eigenvalues(built)
    assert list(spectra) == [f"layer {i}" for i in range(11)]
    for block, spectrum in zip(built.encoder.blocks, spectra.values(), strict=True):
        np.testing.assert_array_equal(spectrum, block.recurrence.eigenvalues()[""])


def test_a_layer_alone_and_a_model_without_recurrence():
    layer = LAYERS["lru"](2, 3, rngs=nnx.Rngs(0))
    assert list(eigenvalues(layer)) == ["layer 0"]
    assert eigenvalues(nnx.Linear(2, 2, rngs=nnx.Rngs(0))) == {}


def test_a_layer_without_constant_recurrence_is_left_out_and_counted():
    class Gate(RecurrentLayer):
        pass

    layers = nnx.List([Gate(2, 2), LAYERS["lru"](2, 3, rngs=nnx.Rngs(0))])
    assert list(eigenvalues(nnx.Sequential(*layers))) == ["layer 1"]
