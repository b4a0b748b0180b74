"""Language models of runs at work: writing, looked into, and with a memory of what they read."""

from lru.text.generate import Writing, draw_gates, write
from lru.text.pointer import with_pointer

__all__ = ["Writing", "draw_gates", "with_pointer", "write"]
