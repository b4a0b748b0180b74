"""Data sets, one a file, and what several of them share."""

import sys

from lru.registry import import_submodules

import_submodules(sys.modules[__name__])
