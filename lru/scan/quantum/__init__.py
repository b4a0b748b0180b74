"""The quantum recurrent cell on arrays: exact, over time, with its gate-by-gate oracle."""

from lru.scan.quantum import reference
from lru.scan.quantum.neurons import Activation, Weights, n_subsets
from lru.scan.quantum.recurrence import Measured, quantum_scan

__all__ = ["Activation", "Measured", "Weights", "n_subsets", "quantum_scan", "reference"]
