"""Draws of tokens: which ones can come, how often they do, and what is refused."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from lru.models.sampling import Sampler

PROBS = np.array([0.1, 0.4, 0.2, 0.25, 0.05])
LOGITS = jnp.log(jnp.asarray(PROBS, jnp.float32))[None] + 3.0


def probs(logits=LOGITS, **options):
    return np.exp(Sampler(**options).log_probs(logits))[0]


def kept(**options):
    return np.flatnonzero(probs(**options)).tolist()


def test_as_it_is_the_softmax():
    np.testing.assert_allclose(probs(), PROBS, rtol=1e-5)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_the_temperature_is_a_power_of_the_probabilities(temperature):
    expected = PROBS ** (1 / temperature)
    np.testing.assert_allclose(probs(temperature=temperature), expected / expected.sum(), rtol=1e-5)


@pytest.mark.parametrize("top_k", [1, 2, 4, 5])
def test_top_k_keeps_the_most_probable_in_proportion(top_k):
    order = np.argsort(-PROBS)[:top_k]
    expected = np.zeros(5)
    expected[order] = PROBS[order] / PROBS[order].sum()
    np.testing.assert_allclose(probs(top_k=top_k), expected, rtol=1e-5)


def test_top_k_beyond_the_vocabulary_keeps_all():
    np.testing.assert_array_equal(probs(top_k=99), probs())


@pytest.mark.parametrize(
    ("top_p", "tokens"),
    [(1e-9, [1]), (0.39, [1]), (0.41, [1, 3]), (0.66, [1, 2, 3]), (0.96, [0, 1, 2, 3, 4])],
)
def test_top_p_keeps_the_fewest_with_that_probability(top_p, tokens):
    assert kept(top_p=top_p) == tokens


def test_top_p_of_one_keeps_even_what_rounds_to_nothing():
    logits = jnp.array([[0.0, -60.0, -80.0]])
    assert np.isfinite(Sampler(top_p=1.0).log_probs(logits)).all()
    assert not np.isfinite(Sampler(top_p=0.999999).log_probs(logits)).all()


def test_top_p_is_of_what_temperature_and_top_k_leave():
    # Of the two that are left, 0.4 / 0.65 = 0.615 falls on the first.
    assert kept(top_k=2, top_p=0.61) == [1]
    assert kept(top_k=2, top_p=0.62) == [1, 3]
    # At temperature 0.1 the first has 0.99.
    assert kept(temperature=0.1, top_p=0.98) == [1]


@pytest.mark.parametrize("options", [{"top_k": 2}, {"top_p": 0.4}])
def test_among_equals_the_smaller_id_comes_first(options):
    logits = jnp.zeros((1, 4)).at[0, 0].set(-9.0)
    expected = [0, 0.5, 0.5, 0]
    np.testing.assert_allclose(probs(logits, **options), expected, atol=1e-6)


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"top_k": 1}, {"top_p": 1e-9}])
def test_greedy_takes_the_first_of_the_most_probable(options):
    logits = jnp.array([[1.0, 5.0, 2.0, 5.0], [-jnp.inf, -7.0, -8.0, -7.5]])
    sampler = Sampler(**options)
    np.testing.assert_array_equal(np.exp(sampler.log_probs(logits)), [[0, 1, 0, 0]] * 2)
    for seed in range(5):
        np.testing.assert_array_equal(sampler(jax.random.key(seed), logits), [1, 1])


def test_a_temperature_below_the_smallest_number_leaves_the_most_probable():
    np.testing.assert_array_equal(probs(temperature=1e-42), [0, 1, 0, 0, 0])


@pytest.mark.parametrize(
    "options", [{}, {"temperature": 0.7}, {"top_k": 3}, {"temperature": 1.5, "top_p": 0.8}]
)
def test_frequencies_are_the_probabilities(options):
    sampler, n = Sampler(**options), 20_000
    drawn = np.asarray(jax.jit(sampler)(jax.random.key(0), jnp.tile(LOGITS, (n, 1))))
    counts = np.bincount(drawn, minlength=5)
    expected = probs(**options).astype(float)
    assert (counts[expected == 0] == 0).all()
    some = expected > 0
    result = stats.chisquare(counts[some], n * expected[some] / expected.sum())
    assert result.pvalue > 0.01


def test_rows_are_drawn_apart():
    logits = jnp.tile(LOGITS, (4000, 1))
    drawn = np.asarray(Sampler()(jax.random.key(1), logits))
    same = (drawn[1:] == drawn[:-1]).mean()
    assert same == pytest.approx((PROBS**2).sum(), abs=0.02)


def test_the_key_decides():
    logits = jnp.tile(LOGITS, (64, 1))
    first, again, other = (Sampler()(jax.random.key(seed), logits) for seed in (2, 2, 3))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_half_precision_is_sampled_in_single():
    assert Sampler(top_p=0.9).log_probs(LOGITS.astype(jnp.bfloat16)).dtype == jnp.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.1}, "temperature must be finite and not negative, got -0.1"),
        ({"temperature": math.inf}, "temperature must be finite and not negative, got inf"),
        ({"temperature": math.nan}, "temperature must be finite and not negative, got nan"),
        ({"top_k": 0}, "top_k must be at least 1, got 0"),
        ({"top_p": 0.0}, r"top_p must be in \(0, 1\], got 0.0"),
        ({"top_p": 1.1}, r"top_p must be in \(0, 1\], got 1.1"),
        ({"top_p": math.nan}, r"top_p must be in \(0, 1\], got nan"),
    ],
)
def test_bad_values_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Sampler(**options)
