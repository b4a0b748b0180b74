"""Tasks: a data set joined with a network, a loss and metrics, one a file."""

import sys

from lru.registry import import_submodules
from lru.tasks.base import TASKS, Outcome, Task
from lru.tasks.findings import (
    Animation,
    Bars,
    ConfusionMatrix,
    Curves,
    Finding,
    Findings,
    HeatMap,
    Histogram,
    Picture,
    PictureGrid,
    Table,
)
from lru.tasks.metrics import Maximum, Mean, Metric, Metrics, Minimum

import_submodules(sys.modules[__name__])

__all__ = [
    "TASKS",
    "Animation",
    "Bars",
    "ConfusionMatrix",
    "Curves",
    "Finding",
    "Findings",
    "HeatMap",
    "Histogram",
    "Maximum",
    "Mean",
    "Metric",
    "Metrics",
    "Minimum",
    "Outcome",
    "Picture",
    "PictureGrid",
    "Table",
    "Task",
]
