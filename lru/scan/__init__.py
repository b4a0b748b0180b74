"""Recurrences on arrays: linear scans, their methods by name, a gated one, and the oracle.

Where b comes from a real matrix product [B, T, D] x [D, 2 N] and h goes into one, `paired_scan`
takes and gives real pairs [B, T, 2, N]: what makes complex arrays of them is a pass over memory.
"""

from lru.scan import (
    associative,
    chunked,
    native,
    pallas,
    reference,
    sequential,
    sharded,
)
from lru.scan.elementwise import Step, elementwise_scan
from lru.scan.forget import forget_mult
from lru.scan.gated import Gate, GatedCell, States, gated_scan, gated_steps, unforced
from lru.scan.linear import dense_scan, linear_scan, paired_scan
from lru.scan.methods import DENSE_METHODS, LINEAR_METHODS, TIME_SPLITTING_METHODS
from lru.scan.pooling import pooled_scan
from lru.scan.portability import is_portable, portable
from lru.scan.projected import projected_scan

__all__ = [
    "DENSE_METHODS",
    "LINEAR_METHODS",
    "TIME_SPLITTING_METHODS",
    "Gate",
    "GatedCell",
    "States",
    "Step",
    "associative",
    "chunked",
    "dense_scan",
    "elementwise_scan",
    "forget_mult",
    "gated_scan",
    "gated_steps",
    "is_portable",
    "linear_scan",
    "native",
    "paired_scan",
    "pallas",
    "pooled_scan",
    "portable",
    "projected_scan",
    "reference",
    "sequential",
    "sharded",
    "unforced",
]
