"""JSON lines of a run, and trackers that work in the background.

The trackers themselves are in `lru.training.boards`.
"""

import json
import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral
from pathlib import Path
from threading import Condition, Lock, Thread
from typing import Any, Protocol, SupportsFloat

from lru.files import write_atomically
from lru.tasks import Findings

logger = logging.getLogger(__name__)

Metrics = Mapping[str, SupportsFloat]

SPEED = "speed/"
"""Prefix of names whose values depend on time or machine."""

# JSON has no such numbers; as strings they survive and no parser stumbles over the file.
_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class Tracker(Protocol):
    """Recipient of all that a run reports, in a thread of its own (`Background`)."""

    def log(self, step: int, metrics: Metrics) -> None:
        """Record metrics by name at a step."""
        ...

    def show(self, step: int, findings: Findings) -> None:
        """Record findings by name at a step."""
        ...

    def flush(self) -> None:
        """Hand on everything logged so far."""
        ...

    def close(self) -> None:
        """Flush and release; nothing is logged afterwards."""
        ...


class JsonLinesTracker:
    """One JSON object a line, {"step": ..., name: value, ...}, appended to a file.

    NaN and infinities are written as the strings "NaN", "Infinity" and "-Infinity", which
    `read_jsonl` turns back. A last line that a killed process left unfinished is dropped. Lines
    that cannot be written, as on a full disk, are kept and tried again.
    """

    def __init__(self, path: str | os.PathLike):
        self._path = Path(path)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("ab", buffering=0)
        self._file.truncate(len(_whole_lines(self._path)))
        self._unwritten, self._warned, self._one_at_a_time = b"", False, Lock()

    def log(self, step: int, metrics: Metrics) -> None:
        """Append a line; it outlives the process at once, a power cut only after `flush`."""
        record = {"step": step} | {name: _json_number(value) for name, value in metrics.items()}
        try:
            self._write(json.dumps(record, allow_nan=False).encode() + b"\n")
        except OSError as error:
            if not self._warned:
                logger.warning("%s cannot be written, and is tried again: %s", self._path, error)
            self._warned = True

    def _write(self, more: bytes = b"") -> None:
        with self._one_at_a_time:
            self._unwritten += more
            while self._unwritten:
                self._unwritten = self._unwritten[self._file.write(self._unwritten) :]

    def flush(self) -> None:
        """Wait until all lines are on the disk.

        Raises:
            OSError: if they cannot be written.
        """
        self._write()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Flush and close the file."""
        if not self._file.closed:
            self.flush()
            self._file.close()


def read_jsonl(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Read all whole lines of a file that `JsonLinesTracker` wrote, or is writing.

    Raises:
        ValueError: if a line holds no JSON object; the message names file and line.
    """
    return [
        {name: _NON_FINITE.get(str(value), value) for name, value in record.items()}
        for record in _records(Path(path), _whole_lines(Path(path)).splitlines())
    ]


def truncate(path: str | os.PathLike, last_step: int, *, evaluated: bool = True) -> None:
    """Keep only the lines with step <= last_step, or do nothing if there is no file.

    Of the last step, lines of an evaluation only if it is over (`evaluated`).

    For a run that resumes from a checkpoint, before its tracker opens the file. Atomic: a process
    killed here leaves the old file or the new one.

    Raises:
        ValueError: if a line holds no JSON object; the message names file and line.
    """
    path = Path(path)
    if not path.exists():
        return
    lines = _whole_lines(path).splitlines(keepends=True)
    records = _records(path, lines)
    kept = [
        line
        for line, record in zip(lines, records, strict=True)
        if record["step"] < last_step
        or (
            record["step"] == last_step
            and (evaluated or any(n.startswith("train/") for n in record))
        )
    ]
    write_atomically(path, b"".join(kept))


class Background:
    """A tracker in a thread of its own: nobody waits for it, and what it raises ends it alone.

    What it is told while it is busy waits in a queue; when that is full, the oldest is dropped.

    Args:
        name: for messages.
        open_tracker: makes the tracker, in the thread.
        capacity: length of the queue.
    """

    def __init__(self, name: str, open_tracker: Callable[[], Tracker], capacity: int = 1000):
        self._name, self._capacity = name, capacity
        self._calls: deque[Callable[[Tracker], None]] = deque()
        self._changed = Condition()
        self._ending, self._over, self._told, self._dropped = False, False, 0, 0
        self._thread = Thread(target=self._run, args=(open_tracker,), name=name, daemon=True)
        self._thread.start()

    def tell(self, call: Callable[[Tracker], None]) -> None:
        """Have the tracker called as soon as it has done what it was told before."""
        with self._changed:
            if self._over:
                return
            self._told += 1
            if len(self._calls) == self._capacity:
                if not self._dropped:
                    logger.warning("%s is slower than the run: old records are dropped", self)
                self._dropped += 1
                self._calls.popleft()
            self._calls.append(call)
            self._changed.notify()

    def end(self) -> None:
        """Have the tracker closed once it has done what it was told."""
        with self._changed:
            self._ending = True
            self._changed.notify()

    def wait(self, seconds: float) -> None:
        """Wait for the end, but no longer than this; warn of all that got lost."""
        self._thread.join(max(seconds, 0))
        with self._changed:
            lost = self._dropped + len(self._calls)
            if self._thread.is_alive():
                message = "%s has not ended and is waited for no longer: %d of %d records are lost"
                logger.warning(message, self, lost, self._told)
                self._over = True
                self._calls.clear()
            elif lost:
                logger.warning("%s has dropped %d of %d records", self, lost, self._told)

    def __str__(self):
        return self._name

    def _run(self, open_tracker: Callable[[], Tracker]) -> None:
        try:
            tracker = open_tracker()
            while (call := self._next()) is not None:
                call(tracker)
            tracker.close()
        except Exception as error:
            if not self._over:
                kind = type(error).__name__
                logger.warning("Training goes on without %s: %s: %s", self, kind, error)
        with self._changed:
            self._over = True
            self._calls.clear()

    def _next(self) -> Callable[[Tracker], None] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._calls or self._ending)
            return self._calls.popleft() if self._calls else None


class Trackers:
    """All recipients of a run: JSON lines, which may fail it at its end, and others, which cannot.

    The lines are written when they are logged. Every other tracker has a thread of its own; one
    that blocks or fails neither slows nor stops training, nor the other trackers.
    """

    def __init__(self, lines: JsonLinesTracker | None = None, patience: float = 15.0):
        """Begin with the lines.

        Args:
            lines: of the metrics; None for no file.
            patience: seconds that `close` waits at most.
        """
        self._lines, self._patience = lines, patience
        self._others: list[Background] = []

    def add(self, name: str, open_tracker: Callable[[], Tracker], capacity: int = 1000) -> None:
        """Add a tracker; see `Background`."""
        self._others.append(Background(name, open_tracker, capacity))

    def log(self, step: int, metrics: Metrics) -> None:
        """Log metrics, which are functions of the configuration alone."""
        self._tell(lambda tracker: tracker.log(step, metrics))
        if self._lines is not None:
            self._lines.log(step, metrics)

    def log_speed(self, step: int, metrics: Metrics) -> None:
        """Log what depends on time or machine, by names under speed/; not to the lines."""
        named = {f"{SPEED}{name}": value for name, value in metrics.items()}
        self._tell(lambda tracker: tracker.log(step, named))

    def show(self, step: int, findings: Findings) -> None:
        """Show findings."""
        self._tell(lambda tracker: tracker.show(step, findings))

    def flush(self) -> None:
        """Wait until the lines are on the disk; have the others hand on what they have."""
        self._tell(lambda tracker: tracker.flush())
        if self._lines is not None:
            self._lines.flush()

    def close(self) -> None:
        """Close all, waiting for none longer than they have patience for together."""
        give_up = time.monotonic() + self._patience
        for other in self._others:
            other.end()
        try:
            if self._lines is not None:
                self._lines.close()
        finally:
            for other in self._others:
                other.wait(give_up - time.monotonic())

    def _tell(self, call: Callable[[Tracker], None]) -> None:
        for other in self._others:
            other.tell(call)


def _json_number(value: SupportsFloat) -> int | float | str:
    if isinstance(value, Integral):
        return int(value)
    number = float(value)
    if math.isfinite(number):
        return number
    return next(name for name, same in _NON_FINITE.items() if repr(same) == repr(number))


def _whole_lines(path: Path) -> bytes:
    """The file's bytes up to and including its last newline."""
    content = path.read_bytes()
    return content[: content.rfind(b"\n") + 1]


def _records(path: Path, lines: Iterable[bytes]) -> list[dict[str, Any]]:
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number} is not JSON: {error}") from error
        if not isinstance(record, dict) or "step" not in record:
            raise ValueError(f'{path}, line {number} is not an object with a "step"')
        records.append(record)
    return records
