"""Small classifiers to export, with running statistics that do something."""

import jax.numpy as jnp
import pytest
from flax import nnx

from lru.models import Classifier, ModelConfig

D, N, C, V = 4, 6, 5, 7


@pytest.fixture(scope="session")
def make_classifier():
    """Builds a classifier of tokens, or of values if `n_features` is given."""

    def make(n_features=None, pooling="mean", **changes):
        settings = dict(n_layers=2, d_model=D, d_hidden=N, p_dropout=0.5)
        model = Classifier(
            ModelConfig(**(settings | changes)),
            C,
            vocab_size=V if n_features is None else None,
            n_features=n_features,
            pooling=pooling,
            rngs=nnx.Rngs(0),
        )
        for block in model.encoder.blocks:
            block.norm.mean[...] = jnp.linspace(-1, 1, D)
            block.norm.var[...] = jnp.linspace(0.5, 2, D)
        return model

    return make
