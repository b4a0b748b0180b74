"""Analyses that train something small on a frozen model, one file a family; `lru analyse`."""

import sys

from lru.analysis.methods.base import Analysis, Frozen, Opened, frozen
from lru.registry import import_submodules

import_submodules(sys.modules[__name__])

__all__ = ["Analysis", "Frozen", "Opened", "frozen"]
