"""Linear recurrences on arrays: two scans, their methods by name, and the oracle."""

from lru.scan import associative, reference, sequential
from lru.scan.front import dense_scan, linear_scan
from lru.scan.methods import DENSE_METHODS, LINEAR_METHODS

__all__ = [
    "DENSE_METHODS",
    "LINEAR_METHODS",
    "associative",
    "dense_scan",
    "linear_scan",
    "reference",
    "sequential",
]
