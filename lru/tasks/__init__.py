"""What is learned: a data set's kind joined with a model, a loss and metrics."""

import sys

from lru.registry import import_submodules
from lru.tasks.base import TASKS, Carries, Derives, Predicts, Task

import_submodules(sys.modules[__name__])

__all__ = ["TASKS", "Carries", "Derives", "Predicts", "Task"]
