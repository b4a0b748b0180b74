"""Folders of reports: `report.md` with its pictures, and `report.html`, which holds all."""

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from lru.files import make_folder
from lru.reports.content import LONGEST_NAME, Report
from lru.reports.page import page
from lru.reports.results import Group

REPORT, PAGE = "report.md", "report.html"


def default_folder(names: Sequence[str]) -> Path:
    """The folder of a report, in `reports/`, by the names of its runs, or of folders of runs."""
    name = "-".join(names)
    if len(name) > LONGEST_NAME:
        mark = hashlib.sha256(name.encode()).hexdigest()[:6]
        name = f"{names[0][:LONGEST_NAME]}-and-{len(names) - 1}-more-{mark}"
    return Path("reports") / name


def write_report(
    groups: Sequence[Group],
    folder: Path,
    *,
    left_out: Sequence[str] = (),
    metrics: Sequence[str] = (),
    by: str | None = None,
    last: bool = False,
) -> None:
    """Write a report; the folder appears whole, in place of that of an earlier report.

    Args:
        groups: of trainings, at least one.
        folder: to write.
        left_out: sentences about what the groups leave out.
        metrics: to show, as `split/metric`; none for those of all evaluations, and plots of the
            objectives.
        by: the numeric option to plot results against; None for the one with most values.
        last: show the last evaluation of each training in place of the selected one.

    Raises:
        ValueError: if there is no such metric or option, or the folder holds something else.
        OSError: if the folder cannot be written to.
    """
    report = Report(groups, metrics, by, last)
    folder = folder.absolute()
    _check_folder(folder)
    make_folder(folder.parent, "out")
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        text = report.text(left_out, partial)
        (partial / REPORT).write_text(text, encoding="utf-8")
        (partial / PAGE).write_text(page(text, report.title, partial), encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _check_folder(folder: Path) -> None:
    """Refuse a folder that is not that of an earlier report."""
    if not folder.exists() and not folder.is_symlink():
        return
    entries = list(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else [folder]
    names = {entry.name for entry in entries}
    others = {n for n in names if n not in (REPORT, PAGE) and not n.endswith(".png")}
    if others or (names and REPORT not in names):
        raise ValueError(
            f"out must be a new folder or that of an earlier report, but {folder} holds "
            f"{min(others or names)}"
        )
