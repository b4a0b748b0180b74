"""Data sets: fetched, verified, parsed, cached and described; NumPy only.

`sets` has one a file, `files` reads what was published, `store` keeps what was made of it.
"""

from lru.dataloaders import sets as sets
from lru.dataloaders.base import (
    DATASETS,
    Card,
    Dataset,
    Description,
    Prepared,
    dataset_from_options,
    register,
)
from lru.dataloaders.in_memory import from_arrays, from_torch
from lru.dataloaders.sets.corpora import Characters, Words
from lru.dataloaders.store.arrays import NO_TARGET, Dense, Pairs, Ragged, Split, given
from lru.dataloaders.store.cache import write_dense
from lru.dataloaders.store.writers import DenseWriter, PairWriter, RaggedWriter

__all__ = [
    "DATASETS",
    "NO_TARGET",
    "Card",
    "Characters",
    "Dataset",
    "Dense",
    "DenseWriter",
    "Description",
    "PairWriter",
    "Pairs",
    "Prepared",
    "Ragged",
    "RaggedWriter",
    "Split",
    "Words",
    "dataset_from_options",
    "from_arrays",
    "from_torch",
    "given",
    "register",
    "write_dense",
]
