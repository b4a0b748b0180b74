"""Recorded cases of the repeat task and its analyses; see `tests/fixtures/README.md`."""

import json
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lru.analysis.methods import Opened
from lru.batches import Batch
from lru.dataloaders import Card
from lru.interop.torch import load_state_dict, state_dict
from lru.models import NETWORKS, EncoderDecoder, ModelConfig
from lru.tasks.repeat import Repeat, RepeatOptions

FIXTURE = Path(__file__).parents[1] / "fixtures" / "repeat_reference.npz"


@cache
def recorded():
    """All arrays by `case/name`."""
    with np.load(FIXTURE, allow_pickle=False) as arrays:
        return dict(arrays)


def case(name):
    """The facts of a case, and its arrays."""
    facts = json.loads(str(recorded()["meta_json"]))["cases"][name]
    return SimpleNamespace(**facts, arrays=starting_with(f"{name}/", recorded()))


def starting_with(prefix, arrays):
    """Arrays whose names begin so, by the rest of their names."""
    return {n.removeprefix(prefix): v for n, v in arrays.items() if n.startswith(prefix)}


def task(case, kind=Repeat, options=None, *more, model="gru", n_layers=1):
    """A task on data like those of a case."""
    longest = max(getattr(case, "L", 0), *getattr(case, "lens", (2,)))
    split = {"examples": 1, "min_length": 2, "mean_length": 2.0, "max_length": longest}
    card = Card(
        name="given",
        version=1,
        kind="tokens",
        n_classes=case.V,
        vocab_size=case.V + 1,
        vocabulary=["", *map(str, range(case.V))],
        targets="tokens",
        max_length=longest,
        splits={n: {**split, "class_counts": []} for n in ("train", "fixed_train", "fixed")},
    )
    sizes = {"n_layers": n_layers, "d_model": case.N, "d_hidden": case.N, "p_dropout": 0.0}
    config = ModelConfig(model, **({} if model in NETWORKS else sizes))
    return kind(card, config, options, *more)


def analysis(case, kind, options=None):
    """An analysis of the recorded frozen model."""
    weights = starting_with("f_", case.arrays)
    subject = in_double(network(case, weights))
    opened = Opened(task(case, options=RepeatOptions(no_input=_no_input(case))), [subject])
    return task(case, kind, kind.Options() if options is None else options, opened)


def _no_input(case):
    return getattr(case, "no_input", False)


def network(case, weights):
    """The recorded encoder and decoder."""
    made = task(case, options=RepeatOptions(no_input=_no_input(case))).build_model(nnx.Rngs(0))
    assert isinstance(made, EncoderDecoder)
    # The embedding of a flag's network is as wide as its state: zeros make up for it.
    wider = {"embedding.weight", "rnn.weight_ih_l0"}
    beyond = ((0, 0), (0, case.N - weights["embedding.weight"].shape[1]))
    weights = {n: np.pad(v, beyond) if n in wider else v for n, v in weights.items()}
    return loaded(in_double(made), weights)


def in_double(module):
    """The module with float64 in place of float32."""
    graphdef, state = nnx.split(module)
    double = jax.tree.map(lambda x: x.astype(float) if x.dtype == jnp.float32 else x, state)
    return nnx.merge(graphdef, double)


NAMES = {
    "EncoderDecoder": {"embedding.weight": "embedding", "fc": "head", "rnn": "body.cells.0"},
    "VectorSum": {"embedding.weight": "embedding", "fc": "head"},
    "OnionEdit": {
        "embedding.weight": "embedding",
        **{n: f"scale.{n}" for n in ("g", "b", "gamma")},
        "lin": "scale.beta",
    },
    "LinearEdit": {n: n for n in ("skew", "base", "logits")},
    "OnionReadout": {
        "emb.weight": "embedding",
        **{n: f"scale.{n}" for n in ("g", "b", "gamma")},
        "lin": "scale.beta",
        "cls.0": "hidden",
        "cls.2": "head",
        "norm.weight": "norm.scale",
        "norm.bias": "norm.bias",
    },
    "GRUReadout": {"emb.weight": "embedding", "gru": "gru", "cls": "head"},
    "FeedForwardReadout": {"model.l0": "hidden", "model.l1": "head"},
}
"""Places of the recorded names in our modules, of single variables and of layers."""


def _at(module, place):
    for step in place.split("."):
        module = module[int(step)] if step.isdigit() else getattr(module, step)
    return module


def _names(module):
    names = NAMES[type(module).__name__]
    if type(module).__name__ == "FeedForwardReadout" and module.hidden is None:
        return {"model.l0": "head"}
    return names


def exported(module):
    """All variables of a module by their recorded names."""
    found = {}
    for name, place in _names(module).items():
        part = _at(module, place)
        if isinstance(part, nnx.Linear):
            found |= {f"{name}.weight": part.kernel[...].T, f"{name}.bias": part.bias[...]}
        elif isinstance(part, nnx.Variable):
            found[name] = part[...]
        elif part is not None:
            found |= {f"{name}.{n}": v for n, v in state_dict(part).items()}
    return {name: np.asarray(value) for name, value in found.items()}


def loaded(module, weights):
    """The module, with the recorded weights that there are."""
    for name, place in _names(module).items():
        part, own = _at(module, place), starting_with(f"{name}.", weights)
        if isinstance(part, nnx.Linear):
            part.kernel[...], part.bias[...] = own["weight"].T, own["bias"]
        elif isinstance(part, nnx.Variable):
            part[...] = jnp.asarray(weights.get(name, part[...]))
        elif part is not None:
            load_state_dict(part, own)
    return module


# These run once: their compilation is what takes time.
compiled = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def gradients_of(loss, module):
    """What a function of a module gives, a loss and more, and the gradients of the loss."""
    graphdef, params, rest = nnx.split(module, nnx.Param, ...)

    @compiled
    def value_and_grad(params, rest):
        def of_params(params):
            return loss(nnx.merge(graphdef, params, rest))

        return jax.value_and_grad(of_params, has_aux=True)(params)

    return value_and_grad(params, rest)


def gradients(loss, module):
    """The same, with gradients by their recorded names."""
    value, grads = gradients_of(loss, module)
    nnx.update(module := nnx.clone(module), grads)
    return value, exported(module)


def batch(symbols, lengths):
    """Rows of symbols from 0, recorded by step, as a batch of ids from 1."""
    symbols, lengths = np.asarray(symbols).T, np.asarray(lengths)
    ids = np.where(np.arange(symbols.shape[1]) < lengths[:, None], symbols + 1, 0)
    return Batch(jnp.asarray(ids), None, jnp.ones(len(ids)), jnp.asarray(lengths))


def batch_of(case):
    """The batch of a case."""
    return batch(case.arrays["in"], case.arrays["in_len"])


def valid(symbols_by_step, lengths):
    """True below the lengths, rows first."""
    return np.arange(len(symbols_by_step)) < np.asarray(lengths)[:, None]
