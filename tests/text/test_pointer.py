"""The continuous cache over a run's evaluation."""

import jax.numpy as jnp
import numpy as np

from lru.commands import main
from lru.models.cache_pointer import CachePointer
from lru.text import with_pointer
from lru.training.trackers import read_jsonl

POINTER = CachePointer(window=7, theta=0.5, weight=0.3)


def by_hand(loaded, split, rows):
    """Mixed nll of each stream, read in one go, with the whole past in view."""
    tokens = loaded.trained.data.splits[split].values.astype(int)
    steps = -(-len(tokens) // rows)
    total = 0.0
    for row in range(rows):
        targets = tokens[row * steps : (row + 1) * steps]
        before = loaded.boundary if row == 0 else tokens[row * steps - 1]
        inputs = np.concatenate([[before], targets[:-1]])
        features, _ = loaded.model.features(jnp.array(inputs)[None])
        h = np.asarray(features.raw[0], float)
        nll = np.asarray(loaded.model.head.nll(features.dropped, jnp.array(targets)[None])[0])
        for t, target in enumerate(targets):
            past = range(max(0, t - POINTER.window), t)
            p = np.exp(-nll[t])
            if len(past):
                scores = np.exp([POINTER.theta * h[i] @ h[t] for i in past])
                hits = np.array([targets[i] == target for i in past])
                p = (1 - POINTER.weight) * p + POINTER.weight * scores @ hits / scores.sum()
            total -= np.log(p)
    return total / len(tokens)


def test_the_mixture_is_that_of_the_definition_and_alone_what_the_run_logged(loaded, qrnn_run):
    found = with_pointer(loaded, POINTER, "test")
    np.testing.assert_allclose(found["test/pointer/nll"], by_hand(loaded, "test", 2), rtol=1e-4)
    np.testing.assert_allclose(
        found["test/pointer/perplexity"], np.exp(found["test/pointer/nll"]), rtol=1e-6
    )
    (logged,) = (
        line["test/nll"]
        for line in read_jsonl(qrnn_run / "metrics.jsonl")
        if line["step"] == loaded.trained.update and "test/nll" in line
    )
    np.testing.assert_allclose(found["test/nll"], logged, rtol=1e-5)
    assert found["test/tokens"] == found["test/pointer/tokens"] == 93


def test_the_command_prints_both(qrnn_run, capsys):
    assert main(["pointer", str(qrnn_run), "--window", "5", "--theta", "1", "--weight", "0.2"]) == 0
    printed = capsys.readouterr().out
    for name in ("val/perplexity", "val/pointer/perplexity", "test/pointer/bits", "test/tokens"):
        assert f"  {name} " in printed
    assert main(["pointer", str(qrnn_run), "--window", "0"]) == 2
    assert capsys.readouterr().err == "lru pointer: window must be at least 1, got 0\n"
