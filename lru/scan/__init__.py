"""Recurrences on arrays: linear scans, their methods by name, nonlinear ones, and the oracle.

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
from lru.scan.delta import delta_scan
from lru.scan.elementwise import Elementwise
from lru.scan.forget import forget_mult
from lru.scan.gated import Gate, GatedCell, States, gated_scan, gated_steps, unforced
from lru.scan.linear import block_scan, dense_scan, linear_scan, paired_scan
from lru.scan.methods import DENSE_METHODS, LINEAR_METHODS, TIME_SPLITTING_METHODS
from lru.scan.mlstm import Memory, mlstm_scan
from lru.scan.nonlinear import GatedRecurrence, Recurrence, Report, TimeMethod, nonlinear_scan
from lru.scan.pooling import pooled_scan
from lru.scan.portability import is_portable, portable
from lru.scan.projected import projected_scan
from lru.scan.selective import selective_scan
from lru.scan.ssd import ssd_scan

__all__ = [
    "DENSE_METHODS",
    "LINEAR_METHODS",
    "TIME_SPLITTING_METHODS",
    "Elementwise",
    "Gate",
    "GatedCell",
    "GatedRecurrence",
    "Memory",
    "Recurrence",
    "Report",
    "States",
    "TimeMethod",
    "associative",
    "block_scan",
    "chunked",
    "delta_scan",
    "dense_scan",
    "forget_mult",
    "gated_scan",
    "gated_steps",
    "is_portable",
    "linear_scan",
    "mlstm_scan",
    "native",
    "nonlinear_scan",
    "paired_scan",
    "pallas",
    "pooled_scan",
    "portable",
    "projected_scan",
    "reference",
    "selective_scan",
    "sequential",
    "sharded",
    "ssd_scan",
    "unforced",
]
