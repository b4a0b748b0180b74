"""The continuous cache beside a plain loop, in whatever stretches the stream comes."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lru.models.cache_pointer import NO_WORD, CachePointer

B, T, D, V, W = 2, 11, 4, 5, 3
POINTER = CachePointer(window=W, theta=0.7, weight=0.3)


@pytest.fixture(scope="module")
def stream():
    """Features, targets and the model's whole distribution."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(B, T, D)).astype(np.float32)
    targets = rng.integers(V, size=(B, T)).astype(np.int32)
    probs = rng.dirichlet(np.ones(V), size=(B, T))
    return features, targets, probs


def of_targets(probs, targets):
    chosen = np.take_along_axis(probs, np.maximum(targets, 0)[..., None], -1)[..., 0]
    return np.log(chosen).astype(np.float32)


run = jax.jit(CachePointer.__call__, static_argnums=0)


def mix(pointer, features, targets, probs, cache=None):
    """Call a pointer, by default at the start of a stream."""
    cache = pointer.empty(B, D) if cache is None else cache
    log_probs = jnp.asarray(of_targets(probs, targets))
    return run(pointer, jnp.asarray(features), jnp.asarray(targets), log_probs, cache)


def loop(features, targets, probs, pointer):
    """The whole distribution of the mixture, step by step in float64."""
    mixed = probs.copy()
    for row in range(len(features)):
        past = []
        for t in range(features.shape[1]):
            query = features[row, t].astype(float)
            if past:
                weights = np.array([math.exp(pointer.theta * (h @ query)) for h, _ in past])
                weights /= weights.sum()
                mixed[row, t] *= 1 - pointer.weight
                for share, (_, word) in zip(weights, past, strict=True):
                    mixed[row, t, word] += pointer.weight * share
            if targets[row, t] != NO_WORD:
                past = [*past, (query, targets[row, t])][-pointer.window :]
    return mixed


@pytest.mark.parametrize(
    "pointer",
    [
        POINTER,
        CachePointer(window=1, theta=2.0, weight=0.9),
        CachePointer(window=100, theta=0.0, weight=0.1),
    ],
)
def test_as_a_plain_loop(stream, pointer):
    features, targets, probs = stream
    mixed, cache = mix(pointer, features, targets, probs)
    expected = of_targets(loop(features, targets, probs, pointer), targets)
    np.testing.assert_allclose(mixed, expected, rtol=1e-5, atol=1e-5)
    kept = min(pointer.window, T)
    np.testing.assert_array_equal(cache.words[:, -kept:], targets[:, -kept:])
    np.testing.assert_array_equal(cache.features[:, -kept:], features[:, -kept:])


@pytest.mark.parametrize("lengths", [[1] * T, [2, 1, 8]])
def test_stretches_are_as_the_whole(stream, lengths):
    features, targets, probs = stream
    whole, last = mix(POINTER, features, targets, probs)
    cache, parts, start = None, [], 0
    for n in lengths:
        part = slice(start, start + n)
        inputs = (array[:, part] for array in stream)
        mixed, cache = mix(POINTER, *inputs, cache)
        parts.append(mixed)
        start += n
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, rtol=1e-5)
    for one, other in zip(cache, last, strict=True):
        np.testing.assert_array_equal(one, other)


def test_probabilities_of_all_words_sum_to_one(stream):
    features, targets, probs = stream
    total = 0
    for word in range(V):
        ends = targets.copy()
        ends[:, -1] = word
        mixed, _ = mix(POINTER, features, ends, probs)
        total += np.exp(mixed[:, -1])
    np.testing.assert_allclose(total, 1, rtol=1e-6)


def test_padding_at_the_end_stays_out_of_the_cache(stream):
    features, targets, probs = stream
    targets = targets.copy()
    targets[1, 6:] = NO_WORD
    mixed, cache = mix(POINTER, features, targets, probs)
    expected = of_targets(loop(features, targets, probs, POINTER), targets)
    np.testing.assert_allclose(mixed[0], expected[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(mixed[1, :6], expected[1, :6], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(mixed[1, 6:], of_targets(probs, targets)[1, 6:])
    assert (cache.words[1] == NO_WORD).all()


def test_without_weight_or_words_the_model_is_left_as_it_is(stream):
    features, targets, probs = stream
    log_probs = of_targets(probs, targets)
    nothing = CachePointer(window=W, theta=1.0, weight=0.0)
    mixed, _ = mix(nothing, features, targets, probs)
    np.testing.assert_allclose(mixed, log_probs, rtol=1e-6)
    first, _ = mix(POINTER, *(array[:, :1] for array in stream))
    np.testing.assert_array_equal(first, log_probs[:, :1])


def test_large_scores_stay_finite(stream):
    features, targets, probs = stream
    mixed, _ = mix(POINTER, 100 * features, targets, probs)
    assert np.isfinite(mixed).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0}, "window must be at least 1, got 0"),
        ({"theta": -1.0}, "theta must be finite and not negative, got -1.0"),
        ({"theta": math.nan}, "theta must be finite and not negative, got nan"),
        ({"weight": 1.0}, r"weight must be in \[0, 1\), got 1.0"),
        ({"weight": -0.1}, r"weight must be in \[0, 1\), got -0.1"),
    ],
)
def test_bad_values_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        CachePointer(**({"window": W, "theta": 1.0, "weight": 0.1} | options))


@pytest.mark.parametrize("shape", [(B + 1, W, D), (B, W + 1, D), (B, W, D + 1)])
def test_a_cache_of_another_shape_is_refused(stream, shape):
    cache = CachePointer(shape[1], 1.0, 0.1).empty(shape[0], shape[2])
    with pytest.raises(ValueError, match=r"cache must have features of shape \(2, 3, 4\), got"):
        mix(POINTER, *stream, cache)
