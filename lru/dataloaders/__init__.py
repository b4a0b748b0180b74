"""Data sets: fetched, verified, parsed, cached and described; one a file, NumPy only."""

import sys

from lru.dataloaders.arrays import NO_TARGET, Dense, Pairs, Ragged, Split
from lru.dataloaders.base import DATASETS, Card, Dataset, Prepared, dataset_from_options
from lru.dataloaders.own import from_arrays, from_torch
from lru.registry import import_submodules

import_submodules(sys.modules[__name__])

__all__ = [
    "DATASETS",
    "NO_TARGET",
    "Card",
    "Dataset",
    "Dense",
    "Pairs",
    "Prepared",
    "Ragged",
    "Split",
    "dataset_from_options",
    "from_arrays",
    "from_torch",
]
