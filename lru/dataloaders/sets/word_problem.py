"""Word problems of groups: the running product of random elements, at every step.

A5, the even permutations of five things, is the smallest group that is not solvable, S5 has all of
their permutations, and Z60, the numbers modulo 60, commutes: the state tracking of Merrill, Petty &
Sabharwal (2024), "The Illusion of State in State-Space Models", section 5.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import combinations, permutations
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from jaxtyping import Int

from lru.dataloaders.base import Description, check_at_least, register
from lru.dataloaders.sets.generated import Generated, Ids
from lru.dataloaders.sets.streams import Stream

Group = Literal["a5", "s5", "z60"]


def elements(group: Group) -> list[str]:
    """The elements of a group, as images of 0 to 4 or as numbers, the neutral one first."""
    if group == "z60":
        return list(map(str, range(60)))
    found = map("".join, permutations("01234"))
    return [p for p in found if group == "s5" or _swaps(p) % 2 == 0]


def _swaps(permutation: str) -> int:
    return sum(a > b for a, b in combinations(permutation, 2))


@cache
def products(group: Group) -> Int[np.ndarray, "G G"]:
    """Numbers of the products of two elements, by their numbers: the first acts first."""
    names = elements(group)
    if group == "z60":
        return np.add.outer(np.arange(60), np.arange(60)) % 60
    number = {name: n for n, name in enumerate(names)}
    return np.array([[number["".join(q[int(i)] for i in p)] for q in names] for p in names])


@register
@dataclass(frozen=True)
class WordProblem(Generated):
    """Multiply random elements of a group, with the product so far at each step; generated."""

    name: ClassVar[str] = "word-problem"
    task: ClassVar[str] = "classification_by_length"
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        f"group-{group}": {"group": group} for group in get_args(Group)
    }

    group: Group = "a5"
    """the group: a5, s5 or z60"""
    length: int = 20
    """elements of a row to train on"""
    eval_length: int = 60
    """elements of a row to evaluate on; its first steps are rows of all smaller lengths"""

    def __post_init__(self):
        super().__post_init__()
        check_at_least(self, length=1, eval_length=1)

    def longest(self, split: str) -> int:
        """See `Generated.longest`."""
        return self.length if split == "train" else self.eval_length

    def rows(self, split: str, n: int, stream: Stream) -> tuple[Ids, Int[np.ndarray, "n T"]]:
        """See `Generated.rows`."""
        table = products(self.group)
        drawn = stream.below(len(table), n, self.longest(split))
        labels = drawn.copy()
        for step in range(1, drawn.shape[1]):
            labels[:, step] = table[labels[:, step - 1], drawn[:, step]]
        return drawn + 1, labels

    def description(self) -> Description:
        """See `Generated.description`."""
        names = elements(self.group)
        return Description(
            kind="tokens",
            n_classes=len(names),
            targets="class_per_step",
            vocabulary=("<pad>", *names),
            provenance=f"Generated with seed {self.seed}.",
            comparable=(
                "Published scores are of one length each, for which a model is trained; here rows "
                f"of {self.length} steps train, and val and test score every step of rows of "
                f"{self.eval_length}. A guess is right in 1 of {len(names)} steps."
            ),
        )
