import time

import numpy as np
import pytest
from scipy import stats

from lru.dataloaders.sets.listops_grammar import (
    FIRST_OPERATOR,
    OPERATORS,
    VOCABULARY,
    Sequences,
    sequences,
)

EVALUATORS = {
    "[MIN": min,
    "[MAX": max,
    "[MED": lambda arguments: int(np.median(arguments)),
    "[SM": lambda arguments: sum(arguments) % 10,
}


def evaluated(words: list[str]) -> int:
    """The value of an expression, by a stack machine that knows nothing of how it was made."""
    stack: list[tuple[str, list[int]]] = [("root", [])]
    for word in words:
        if word in EVALUATORS:
            stack.append((word, []))
            continue
        if word == "]":
            operator, arguments = stack.pop()
            value = EVALUATORS[operator](arguments)
        else:
            value = int(word)
        stack[-1][1].append(value)
    ((_, (value,)),) = stack
    return value


def shape_of(words: list[str]) -> tuple[list[int], list[int]]:
    """Depth and number of arguments of each operator; the root has depth 1."""
    open_counts: list[int] = []
    depths, arguments = [], []
    for word in words:
        if word == "]":
            arguments.append(open_counts.pop())
            continue
        if open_counts:
            open_counts[-1] += 1
        if word in EVALUATORS:
            open_counts.append(0)
            depths.append(len(open_counts))
    return depths, arguments


def decoded(batch: Sequences) -> list[list[str]]:
    words = [VOCABULARY[token] for token in batch.tokens]
    ends = np.cumsum(batch.lengths).tolist()
    return [words[end - length : end] for end, length in zip(ends, batch.lengths, strict=True)]


def sampled(n: int, seed: int = 0, **limits: int) -> Sequences:
    """At least `n` sequences."""
    parts: list[Sequences] = []
    for batch in sequences(np.random.default_rng(seed), **limits):
        parts.append(batch)
        if sum(len(part.lengths) for part in parts) >= n:
            return Sequences(
                np.concatenate([part.tokens for part in parts]),
                np.concatenate([part.lengths for part in parts]),
                np.concatenate([part.values for part in parts]),
            )
    raise AssertionError("the generator ended")


LRA = {"min_length": 500, "max_length": 2000, "max_depth": 10, "max_args": 10}
SMALL = {"min_length": 1, "max_length": 10**9, "max_depth": 5, "max_args": 6}


def test_an_evaluator_of_known_expressions():
    assert evaluated(["[MED", "1", "4", "]"]) == 2
    assert evaluated(["[SM", "9", "[MAX", "2", "7", "]", "5", "]"]) == 1
    assert evaluated(["[MIN", "3", "[MED", "9", "0", "5", "]", "]"]) == 3


@pytest.mark.parametrize("limits", [LRA, SMALL, {**LRA, "max_args": 3, "min_length": 20}])
def test_values_are_those_of_an_independent_evaluator(limits):
    batch = sampled(50, **limits)
    for words, value in list(zip(decoded(batch), batch.values, strict=True))[:300]:
        assert evaluated(words) == value


def test_sequences_keep_to_the_limits():
    batch = sampled(2000, min_length=5, max_length=30, max_depth=4, max_args=3)
    # An operator with three digits has five tokens, so that the next possible length is seven.
    assert batch.lengths.min() == 7
    assert batch.lengths.max() == 29
    shapes = [shape_of(words) for words in decoded(batch)]
    assert {max(depths) for depths, _ in shapes} == {2, 3}
    assert {count for _, arguments in shapes for count in arguments} == {2, 3}


def test_the_mean_and_variance_of_lengths_are_the_grammars():
    depth, most = SMALL["max_depth"], SMALL["max_args"]
    counts = np.arange(2, most + 1)
    mean, variance = 1.0, 0.0
    for _ in range(depth - 1):
        operator_mean = 2 + counts.mean() * mean
        operator_variance = counts.mean() * variance + counts.var() * mean**2
        second = 0.75 + 0.25 * (operator_variance + operator_mean**2)
        mean = 0.75 + 0.25 * operator_mean
        variance = second - mean**2
    lengths = sampled(20_000, **SMALL).lengths
    # Given that the root is an operator, which a length above one says.
    error = np.sqrt(operator_variance / len(lengths))
    assert abs(lengths.mean() - operator_mean) < 4 * error
    assert lengths.var() == pytest.approx(operator_variance, rel=0.05)


def test_operators_digits_and_arguments_are_uniform_and_operators_branch_as_they_should():
    batch = sampled(4000, **SMALL)
    counts = np.bincount(batch.tokens, minlength=len(VOCABULARY))
    operators = counts[FIRST_OPERATOR : FIRST_OPERATOR + len(OPERATORS)]
    assert stats.chisquare(operators).pvalue > 1e-4
    assert stats.chisquare(counts[-10:]).pvalue > 1e-4
    assert counts[VOCABULARY.index("]")] == operators.sum()
    assert counts[0] == 0
    shapes = [shape_of(words) for words in decoded(batch)]
    arguments = np.bincount([count for _, each in shapes for count in each], minlength=7)
    assert stats.chisquare(arguments[2:]).pvalue > 1e-4
    depths = np.bincount([depth for each, _ in shapes for depth in each])
    growth = (2 + SMALL["max_args"]) / 2 / 4
    expected = len(shapes) * growth ** np.arange(SMALL["max_depth"] - 1)
    assert len(depths) == SMALL["max_depth"]
    np.testing.assert_allclose(depths[1:], expected, rtol=0.08)


def test_the_length_window_only_selects():
    """A window gives the same distribution as drawing without one and throwing away."""
    free = sampled(40_000, **SMALL).lengths
    window = sampled(3_000, seed=1, **{**SMALL, "min_length": 30, "max_length": 60}).lengths
    kept = free[(free > 30) & (free < 60)]
    assert stats.ks_2samp(window, kept).pvalue > 1e-4


def test_deep_trees_that_grow_too_long_are_cut_off_early():
    batch = sampled(100, min_length=10, max_length=200, max_depth=60, max_args=10)
    assert batch.lengths.max() < 200


def test_the_seed_decides():
    def tokens(seed: int) -> bytes:
        return sampled(10, seed=seed, **LRA).tokens.tobytes()

    assert tokens(5) == tokens(5)
    assert tokens(5) != tokens(6)


def test_a_hundred_thousand_take_less_than_three_minutes():
    started = time.process_time()
    drawn = len(sampled(2000, **LRA).lengths)
    assert (time.process_time() - started) / drawn * 100_000 < 180
