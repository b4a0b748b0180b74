"""Trackers: files in the folder of the run always, TensorBoard and Weights & Biases when asked."""

import csv
import io
import json
import logging
import netrc
import os
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.parse import urlparse
from urllib.request import urlopen

import numpy as np
from PIL import Image

from lru.files import write_atomically
from lru.tasks.findings import Animation, Curves, Finding, Findings, Histogram, Table
from lru.training.trackers import SPEED, JsonLinesTracker, Metrics

if TYPE_CHECKING:
    from lru.analysis.drawing import Drawing

logger = logging.getLogger(__name__)

DRAWING_SHARE = 0.05
"""Share of the time that may be spent on writing findings to files."""

WANDB_SECONDS = 12.0
"""Most that Weights & Biases may take to begin a run, and to upload at its end."""


class Files:
    """The speed as JSON lines in speed.jsonl, and the last findings as files.

    A table is tables/NAME.csv, anything else pictures/NAME.png, or .gif of an animation; curves
    are curves/NAME.csv as well. Where evaluations follow each other fast, some are left out, but
    never the last.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: str | os.PathLike):
        self._folder = Path(folder)
        self._speed = JsonLinesTracker(self._folder / "speed.jsonl")
        self._latest: dict[str, Finding] = {}
        self._next_writing = 0.0

    def log(self, step: int, metrics: Metrics) -> None:
        """Append a line of what depends on time or machine; the rest has a file of its own."""
        speed = {name: value for name, value in metrics.items() if name.startswith(SPEED)}
        if speed:
            self._speed.log(step, speed)

    def show(self, step: int, findings: Findings) -> None:
        """Write all findings over those of earlier steps, if that is due, or later."""
        self._latest.update(findings)
        if time.monotonic() >= self._next_writing:
            self._write_latest()

    def _write_latest(self) -> None:
        start = time.monotonic()
        for name, finding in self._latest.items():
            if isinstance(finding, Table):
                self._write(f"tables/{name}.csv", _csv(finding.columns, finding.rows))
                continue
            if isinstance(finding, Curves):
                points = [
                    (curve, *point)
                    for curve, (x, y) in finding.curves.items()
                    for point in zip(np.asarray(x).tolist(), np.asarray(y).tolist(), strict=True)
                ]
                columns = ("curve", finding.x_label, finding.y_label)
                self._write(f"curves/{name}.csv", _csv(columns, points))
            drawing = _drawn(finding)
            self._write(f"pictures/{name}.{drawing.suffix}", drawing.content)
        self._latest.clear()
        end = time.monotonic()
        # Drawing keeps an interpreter busy that updates need too.
        self._next_writing = end + (end - start) * (1 / DRAWING_SHARE - 1)

    def _write(self, name: str, content: bytes) -> None:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)

    def flush(self) -> None:
        """Wait until all lines are on the disk."""
        self._speed.flush()

    def close(self) -> None:
        """Write what has not been written, and close."""
        try:
            self._write_latest()
        finally:
            self._speed.close()


class TensorBoardTracker:
    """TensorBoard event files, through tensorboardX.

    Args:
        folder: where the event files go.
        purge_step: hide what an earlier process logged from this step on, when a run resumes.
        texts: tables of values by name, such as the configuration, shown as text.

    Raises:
        ImportError: if tensorboardX is not installed.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        purge_step: int = 0,
        texts: Mapping[str, Mapping[str, Any]] | None = None,
    ):
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise ImportError(
                'the TensorBoard tracker needs tensorboardX: pip install "lru-jax[tensorboard]"'
            ) from error
        self._writer = SummaryWriter(str(folder), purge_step=purge_step)
        for title, values in (texts or {}).items():
            rows = [(name, json.dumps(value, default=str)) for name, value in values.items()]
            self._writer.add_text(title, _markdown(Table(("name", "value"), rows)), purge_step)

    def log(self, step: int, metrics: Metrics) -> None:
        """Add every metric as a scalar."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, float(value), step)

    def show(self, step: int, findings: Findings) -> None:
        """Add tables as text, histograms as such, and the rest as images."""
        from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore

        for name, finding in findings.items():
            if isinstance(finding, Table):
                self._writer.add_text(name, _markdown(finding), step)
            elif isinstance(finding, Histogram):
                bins: Any = finding.n_bins
                self._writer.add_histogram(name, finding.finite(), step, bins)
            else:
                # Its own way to add an image knows nothing of animations.
                content, _, (width, height) = _drawn(finding)
                image = Summary.Image(
                    height=height, width=width, colorspace=3, encoded_image_string=content
                )
                summary = Summary(value=[Summary.Value(tag=name, image=image)])
                self._writer.file_writer.add_summary(summary, step)  # pyright: ignore

    def flush(self) -> None:
        """Write out pending events."""
        self._writer.flush()

    def close(self) -> None:
        """Write out pending events and close the file."""
        self._writer.close()


class WandbTracker:
    """A Weights & Biases run that later processes of the same run folder continue.

    The mode is WANDB_MODE where set, else online where an API key is found (WANDB_API_KEY or the
    netrc file), else offline, as where nobody answers; `wandb sync` uploads an offline run later,
    and what is not uploaded soon after the end of a run. The axis of all metrics
    is `step`, which begins again where a resumed run does; that of wandb itself only counts lines.

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
            settings={"init_timeout": WANDB_SECONDS, "finish_timeout": WANDB_SECONDS},
        )
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, metrics: Metrics) -> None:
        """Log all metrics at a step."""
        self._run.log({"step": step, **{name: float(value) for name, value in metrics.items()}})

    def show(self, step: int, findings: Findings) -> None:
        """Log findings at a step."""
        shown = {name: self._shown(finding) for name, finding in findings.items()}
        self._run.log({"step": step, **shown})

    def _shown(self, finding: Finding) -> Any:
        if isinstance(finding, Table):
            rows = [list(row) for row in finding.rows]
            return self._wandb.Table(columns=list(finding.columns), data=rows)
        if isinstance(finding, Histogram):
            counts = np.histogram(finding.finite(), finding.n_bins)
            return self._wandb.Histogram(np_histogram=counts)
        content = io.BytesIO(_drawn(finding).content)
        if isinstance(finding, Animation):
            return self._wandb.Video(content, format="gif")
        return self._wandb.Image(Image.open(content))

    def flush(self) -> None:
        """Do nothing: wandb sends in the background."""

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


def _drawn(finding: Any) -> "Drawing":
    # Not before there is something to draw: matplotlib takes its time.
    from lru.analysis.drawing import drawn

    return drawn(finding)


def _csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows([columns, *rows])
    return text.getvalue().encode()


def _markdown(table: Table) -> str:
    """A table to read, with four digits of what is no whole number."""

    def cell(value: str | int | float) -> str:
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    rows = [table.columns, ["---"] * len(table.columns), *table.rows]
    return "\n".join(f"| {' | '.join(map(cell, row))} |" for row in rows)


def _run_id(path: Path) -> str:
    """The id kept in a file; at the first call that of an agent of W&B, or one made up."""
    if not path.exists():
        made_up = os.environ.get("WANDB_RUN_ID") or uuid.uuid4().hex[:8]
        write_atomically(path, made_up.encode())
    return path.read_text().strip()


def _wandb_mode() -> str:
    """The mode that WANDB_MODE names, else the one that the login and the network allow.

    Given to wandb by hand: it reads the variable once in the life of a process.
    """
    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"]
    url = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    if not _has_wandb_key(urlparse(url).hostname or ""):
        missing = "No Weights & Biases login found"
    elif not _answers(url):
        missing = f"{url} does not answer"
    else:
        return "online"
    logger.warning("%s: logging offline; wandb sync uploads later", missing)
    return "offline"


def _answers(url: str) -> bool:
    try:
        urlopen(url, timeout=WANDB_SECONDS / 3).close()
    except HTTPError:
        # An answer, if not a kind one.
        return True
    except (OSError, HTTPException):
        return False
    return True


def _has_wandb_key(host: str) -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    configured = os.environ.get("NETRC")
    files = [Path(configured)] if configured else [Path.home() / ".netrc", Path.home() / "_netrc"]
    for file in files:
        try:
            if netrc.netrc(file).authenticators(host):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False
