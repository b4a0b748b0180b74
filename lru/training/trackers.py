"""Trackers of metrics: JSON lines always, TensorBoard and Weights & Biases when asked."""

import csv
import io
import json
import logging
import math
import netrc
import os
import uuid
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral
from pathlib import Path
from typing import Any, Protocol, SupportsFloat, runtime_checkable
from urllib.parse import urlparse

from PIL import Image

from lru.files import write_atomically
from lru.tasks import Findings, Table

logger = logging.getLogger(__name__)

Metrics = Mapping[str, SupportsFloat]

# JSON has no such numbers; as strings they survive and no parser stumbles over the file.
_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


@runtime_checkable
class Tracker(Protocol):
    """Recipient of all that the training loop reports."""

    def log(self, step: int, metrics: Metrics) -> None:
        """Record metrics by name at a step."""
        ...

    def show(self, step: int, findings: Findings) -> None:
        """Record tables and pictures by name at a step."""
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
    `read_jsonl` turns back. A last line that a killed process left unfinished is dropped. The
    tables and pictures of the last evaluation are files beside it: tables/NAME.csv and
    pictures/NAME.png.
    """

    def __init__(self, path: str | os.PathLike):
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._folder = path.parent
        self._file = path.open("ab")
        self._file.truncate(len(_whole_lines(path)))

    def log(self, step: int, metrics: Metrics) -> None:
        """Append a line; it outlives the process at once, a power cut only after `flush`."""
        record = {"step": step} | {name: _json_number(value) for name, value in metrics.items()}
        self._file.write(json.dumps(record, allow_nan=False).encode() + b"\n")
        self._file.flush()

    def show(self, step: int, findings: Findings) -> None:
        """Write all tables and pictures over those of earlier steps."""
        for name, table in findings.tables.items():
            text = io.StringIO()
            csv.writer(text).writerows([table.columns, *table.rows])
            self._write(f"tables/{name}.csv", text.getvalue().encode())
        for name, picture in findings.pictures.items():
            content = io.BytesIO()
            Image.fromarray(picture).save(content, "PNG")
            self._write(f"pictures/{name}.png", content.getvalue())

    def _write(self, name: str, content: bytes) -> None:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)

    def flush(self) -> None:
        """Wait until all lines are on the disk."""
        self._file.flush()
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


class TensorBoardTracker:
    """Scalars as TensorBoard event files, through tensorboardX.

    Args:
        folder: where the event files go.
        purge_step: hide what an earlier process logged from this step on, when a run resumes.

    Raises:
        ImportError: if tensorboardX is not installed.
    """

    def __init__(self, folder: str | os.PathLike, purge_step: int | None = None):
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise ImportError(
                'the TensorBoard tracker needs tensorboardX: pip install "lru-jax[tensorboard]"'
            ) from error
        self._writer = SummaryWriter(str(folder), purge_step=purge_step)

    def log(self, step: int, metrics: Metrics) -> None:
        """Add every metric as a scalar."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, float(value), step)

    def show(self, step: int, findings: Findings) -> None:
        """Add tables as text and pictures as images."""
        for name, table in findings.tables.items():
            self._writer.add_text(name, _markdown(table), step)
        for name, picture in findings.pictures.items():
            self._writer.add_image(name, picture, step, dataformats="HWC")

    def flush(self) -> None:
        """Write out pending events."""
        self._writer.flush()

    def close(self) -> None:
        """Write out pending events and close the file."""
        self._writer.close()


class WandbTracker:
    """A Weights & Biases run that later processes of the same run folder continue.

    The mode is WANDB_MODE where set, else online where an API key is found (WANDB_API_KEY or the
    netrc file), else offline; `wandb sync` uploads an offline run later.

    Args:
        run_dir: the run's folder; it keeps the run's id in `wandb_id`, and wandb's own files.
        project: project to log to.
        entity: user or team; None for the account's default.
        name: the name shown for the run.
        config: the run's configuration, shown beside it.

    Raises:
        ImportError: if wandb is not installed.
    """

    def __init__(
        self,
        run_dir: str | os.PathLike,
        project: str,
        entity: str | None,
        name: str,
        config: Mapping[str, Any],
    ):
        try:
            import wandb
        except ImportError as error:
            raise ImportError(
                'the Weights & Biases tracker needs wandb: pip install "lru-jax[wandb]"'
            ) from error
        run_dir = Path(run_dir)
        run_dir.mkdir(parents=True, exist_ok=True)
        self._wandb = wandb
        self._run = wandb.init(
            dir=str(run_dir),
            project=project,
            entity=entity,
            name=name,
            config=dict(config),
            id=_run_id(run_dir / "wandb_id"),
            resume="allow",
            mode=_wandb_mode(),  # pyright: ignore[reportArgumentType]
        )

    def log(self, step: int, metrics: Metrics) -> None:
        """Log all metrics at a step."""
        self._run.log({name: float(value) for name, value in metrics.items()}, step=step)

    def show(self, step: int, findings: Findings) -> None:
        """Log tables and pictures at a step."""
        shown: dict[str, Any] = {
            name: self._wandb.Table(columns=list(table.columns), data=list(map(list, table.rows)))
            for name, table in findings.tables.items()
        }
        shown |= {name: self._wandb.Image(image) for name, image in findings.pictures.items()}
        self._run.log(shown, step=step)

    def flush(self) -> None:
        """Do nothing: wandb sends in the background."""

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


class Trackers:
    """Several trackers as one, of which only the JSON lines may stop training.

    Any other tracker that raises is switched off after one warning. A failure of a
    `JsonLinesTracker` (a full disk) surfaces, after the other trackers have had their turn.
    """

    def __init__(self, trackers: Iterable[Tracker] = ()):
        self._trackers = list(trackers)

    def add(self, open_tracker: Callable[[], Tracker]) -> None:
        """Open one more tracker; if that fails, warn and go on without it."""
        try:
            self._trackers.append(open_tracker())
        except Exception as error:
            logger.warning("Training goes on without a tracker that did not start: %s", error)

    def log(self, step: int, metrics: Metrics) -> None:
        """Log to every tracker that still works."""
        self._each(lambda tracker: tracker.log(step, metrics))

    def show(self, step: int, findings: Findings) -> None:
        """Show tables and pictures in every tracker that still works."""
        self._each(lambda tracker: tracker.show(step, findings))

    def flush(self) -> None:
        """Flush every tracker that still works."""
        self._each(lambda tracker: tracker.flush())

    def close(self) -> None:
        """Close every tracker that still works."""
        self._each(lambda tracker: tracker.close())

    def _each(self, act: Callable[[Tracker], None]) -> None:
        vital = [t for t in self._trackers if isinstance(t, JsonLinesTracker)]
        for tracker in [t for t in self._trackers if t not in vital]:
            try:
                act(tracker)
            except Exception as error:
                self._trackers.remove(tracker)
                logger.warning(
                    "%s failed and is switched off: %s: %s",
                    type(tracker).__name__,
                    type(error).__name__,
                    error,
                )
        for tracker in vital:
            act(tracker)


def _markdown(table: Table) -> str:
    rows = [table.columns, ["---"] * len(table.columns), *table.rows]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)


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


def _run_id(path: Path) -> str:
    """The id kept in a file, made up at the first call."""
    if not path.exists():
        write_atomically(path, uuid.uuid4().hex[:8].encode())
    return path.read_text().strip()


def _wandb_mode() -> str:
    """The mode that WANDB_MODE names, else the one that the login allows.

    Given to wandb by hand: it reads the variable once in the life of a process.
    """
    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"]
    if _has_wandb_key():
        return "online"
    logger.warning("No Weights & Biases login found: logging offline; wandb sync uploads later")
    return "offline"


def _has_wandb_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    configured = os.environ.get("NETRC")
    files = [Path(configured)] if configured else [Path.home() / ".netrc", Path.home() / "_netrc"]
    for file in files:
        try:
            if netrc.netrc(file).authenticators(host):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False
