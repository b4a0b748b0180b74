"""Tasks: a data set joined with a network, a loss and metrics, one a file."""

import sys

from lru.registry import import_submodules
from lru.tasks.base import TASKS, Findings, Outcome, Table, Task
from lru.tasks.metrics import Maximum, Mean, Metric, Metrics, Minimum

import_submodules(sys.modules[__name__])

__all__ = [
    "TASKS",
    "Findings",
    "Maximum",
    "Mean",
    "Metric",
    "Metrics",
    "Minimum",
    "Outcome",
    "Table",
    "Task",
]
