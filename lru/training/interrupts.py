"""Interrupts (Ctrl-C) that are honoured at the next boundary, not in the middle of things."""

import logging
import signal
import threading
from types import FrameType
from typing import Any

logger = logging.getLogger(__name__)


class Interrupts:
    """Within it, a first interrupt only sets `asked`; a second one raises `KeyboardInterrupt`.

    Does nothing outside the main thread, where Python handles no signals.

    Attributes:
        asked: whether there was one.
    """

    def __init__(self):
        self.asked = False
        self._before: Any = None

    def __enter__(self) -> "Interrupts":
        """Take the signal over."""
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        """Hand the signal back."""
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        logger.info("interrupted: saving and stopping; a second interrupt stops at once")
