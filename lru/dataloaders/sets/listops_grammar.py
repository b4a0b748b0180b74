"""The ListOps grammar of the Long Range Arena (Tay et al. 2021; Nangia & Bowman 2018), in bulk.

A node at depth `d < max_depth` is an operator with probability 1/4, else a digit; at `max_depth` it
is a digit. The root has depth 1. An operator is MIN, MAX, MED or SM, each as likely, and has 2 to
`max_args` arguments, each as likely. The length of a sequence is its number of tokens: one for a
digit, two ("[OP" and "]") and the arguments for an operator. MED is the median rounded down, SM the
sum modulo 10.

Trees are drawn level by level for thousands at once: first their shape, of which most is thrown
away for its length, then the symbols of those that stay.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int32, Int64, UInt8

OPERATORS = ("[MIN", "[MAX", "[MED", "[SM")
VOCABULARY = ("<pad>", *OPERATORS, "]", *(str(digit) for digit in range(10)))
"""The text of each token id; parentheses, which say nothing, have none."""

FIRST_OPERATOR = 1
CLOSE = VOCABULARY.index("]")
ZERO = VOCABULARY.index("0")

_MIN, _MAX, _MED, _SM = range(len(OPERATORS))
_OPERATOR_BYTES = 64
"""Of 256 byte values, how many make a node an operator: a probability of exactly 1/4."""
_TREES_AT_ONCE = 1 << 11


@dataclass(frozen=True)
class Sequences:
    """Linearised trees, one after the other.

    Attributes:
        tokens: `[total]` ids.
        lengths: `[n]` tokens of each.
        values: `[n]` what each evaluates to, 0..9.
    """

    tokens: UInt8[np.ndarray, " total"]
    lengths: Int64[np.ndarray, " n"]
    values: UInt8[np.ndarray, " n"]


@dataclass(frozen=True)
class _Level:
    """The operators at one depth, in the order of their trees.

    Attributes:
        arguments: `[m]` arguments of each operator.
        nested: `[arguments.sum()]` which arguments are operators, themselves the next level.
    """

    arguments: Int64[np.ndarray, " m"]
    nested: Bool[np.ndarray, " children"]


def sequences(
    rng: np.random.Generator, *, min_length: int, max_length: int, max_depth: int, max_args: int
) -> Iterator[Sequences]:
    """Endless batches of sequences with `min_length < length < max_length`, maybe empty ones.

    Args:
        rng: the only source of randomness.
        min_length: all sequences are longer, in tokens.
        max_length: all sequences are shorter.
        max_depth: depth at which every node is a digit; at least 2.
        max_args: most arguments of an operator; at least 2.
    """
    while True:
        levels = _shapes(rng, min_length, max_length, max_depth, max_args)
        yield _filled(rng, levels)


def _shapes(
    rng: np.random.Generator, min_length: int, max_length: int, max_depth: int, max_args: int
) -> list[_Level]:
    """Shapes of the trees of fitting length, out of `_TREES_AT_ONCE` whose root is an operator.

    A root that is a digit makes a sequence of one token, which `min_length >= 1` excludes.
    """
    tree = np.arange(_TREES_AT_ONCE)
    # A lower bound on each tree's length, which is exact once all its operators are expanded:
    # every node counts one until it turns out to be an operator with k arguments: 2 + k.
    length = np.ones(_TREES_AT_ONCE, np.int64)
    levels, owners = [], []
    for depth in range(1, max_depth):
        arguments = rng.integers(2, max_args, len(tree), endpoint=True)
        length += np.bincount(tree, arguments + 1, _TREES_AT_ONCE).astype(np.int64)
        children = int(arguments.sum())
        if depth + 1 < max_depth:
            nested = rng.integers(256, size=children, dtype=np.uint8) < _OPERATOR_BYTES
        else:
            nested = np.zeros(children, bool)
        levels.append(_Level(arguments, nested))
        owners.append(tree)
        # Trees that are too long already grow no further.
        owner = np.repeat(tree, arguments)
        nested &= length[owner] < max_length
        tree = owner[nested]
    fits = (length > min_length) & (length < max_length)
    kept = []
    for level, owner in zip(levels, owners, strict=True):
        keep = fits[owner]
        nested = level.nested[np.repeat(keep, level.arguments)]
        kept.append(_Level(level.arguments[keep], nested))
    return [level for level in kept if len(level.arguments)]


def _filled(rng: np.random.Generator, levels: list[_Level]) -> Sequences:
    """Draw operators and digits for the shapes, evaluate from the leaves up, and write tokens."""
    if not levels:
        return Sequences(np.zeros(0, np.uint8), np.zeros(0, np.int64), np.zeros(0, np.uint8))
    operators = [rng.integers(len(OPERATORS), size=len(level.arguments)) for level in levels]
    sizes, values = np.zeros(0, np.int64), np.zeros(0, np.uint8)
    child_sizes, child_values, own_sizes = [], [], []
    for level, operator in zip(reversed(levels), reversed(operators), strict=True):
        below = rng.integers(10, size=len(level.nested), dtype=np.uint8)
        below[level.nested] = values
        spans = np.ones(len(level.nested), np.int64)
        spans[level.nested] = sizes
        values = _evaluated(operator, below, level.arguments)
        sizes = 2 + np.add.reduceat(spans, _starts(level.arguments))
        child_values.insert(0, below)
        child_sizes.insert(0, spans)
        own_sizes.insert(0, sizes)
    tokens = np.empty(int(sizes.sum()), np.uint8)
    at = _starts(sizes)
    for level, operator, spans, below, own in zip(
        levels, operators, child_sizes, child_values, own_sizes, strict=True
    ):
        tokens[at] = FIRST_OPERATOR + operator
        tokens[at + own - 1] = CLOSE
        # A child starts after its parent's first token and its elder siblings.
        before = _starts(spans)
        elder = before - np.repeat(before[_starts(level.arguments)], level.arguments)
        child_at = np.repeat(at + 1, level.arguments) + elder
        digit = ~level.nested
        tokens[child_at[digit]] = ZERO + below[digit]
        at = child_at[level.nested]
    return Sequences(tokens, sizes, values)


def _evaluated(
    operator: Int64[np.ndarray, " m"],
    below: UInt8[np.ndarray, " children"],
    arguments: Int64[np.ndarray, " m"],
) -> UInt8[np.ndarray, " m"]:
    """Each operator's value, from its arguments' values `below`."""
    starts = _starts(arguments)
    # Sorted within each operator's arguments: the first, the middle and the last are the answers.
    group = np.repeat(np.arange(len(arguments), dtype=np.int64) * 10, arguments)
    ordered = np.sort(group + below) - group
    lower = ordered[starts + (arguments - 1) // 2]
    upper = ordered[starts + arguments // 2]
    by_operator = {
        _MIN: ordered[starts],
        _MAX: ordered[starts + arguments - 1],
        _MED: (lower + upper) // 2,
        _SM: np.add.reduceat(below, starts, dtype=np.int64) % 10,
    }
    return np.choose(operator, [by_operator[index] for index in range(4)]).astype(np.uint8)


def _starts(counts: Int64[np.ndarray, " m"] | Int32[np.ndarray, " m"]) -> Int64[np.ndarray, " m"]:
    """Start of each group, if groups of these sizes lie one after the other."""
    return np.cumsum(counts) - counts
