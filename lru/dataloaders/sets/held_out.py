"""Validation where the benchmark publishes no split for it: cut from train, or the test split."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int64

from lru.dataloaders.base import Dataset, check_at_least

Rows = Int64[np.ndarray, " rows"]


@dataclass(frozen=True)
class HeldOut(Dataset):
    """A data set that is published as a train and a test part."""

    n_val: int = 5_000
    """examples cut from train to validate on"""
    seed: int = 0
    """of the choice of these examples"""
    protocol: Literal["standard", "lra"] = "standard"
    """standard: validate on examples cut from train; lra: on the test split, and train on all"""

    def __post_init__(self):
        check_at_least(self, n_val=1, seed=0)

    def parts(self, n_train: int, n_test: int) -> dict[str, tuple[str, Rows]]:
        """Of each split: the published part that it is taken from, and the rows of that part.

        Args:
            n_train: examples published to train on.
            n_test: examples published to test on.

        Raises:
            ValueError: if validation would leave nothing to train on.
        """
        test = "test", np.arange(n_test)
        if self.protocol == "lra":
            return {"train": ("train", np.arange(n_train)), "val": test, "test": test}
        if self.n_val >= n_train:
            raise ValueError(
                f"{self.name}: n_val is {self.n_val}, but must be less than the {n_train} examples "
                "to train on"
            )
        held_out = np.zeros(n_train, bool)
        held_out[np.random.default_rng(self.seed).permutation(n_train)[: self.n_val]] = True
        return {
            "train": ("train", np.flatnonzero(~held_out)),
            "val": ("train", np.flatnonzero(held_out)),
            "test": test,
        }

    def validated_on(self, n_train: int) -> str:
        """The sentence about validation for the card."""
        if self.protocol == "lra":
            return (
                "With protocol=lra validation is the test set itself, so that the test score is "
                "that of the epoch which was best on it."
            )
        return (
            f"{self.n_val:,} of the {n_train:,} examples to train on, drawn with seed {self.seed}, "
            "are kept for validation."
        )
