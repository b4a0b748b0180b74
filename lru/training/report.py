"""The last words of a run: tables of its numbers."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from lru.tasks import Task
from lru.training.loop import Summary

Report = Mapping[str, float]


def format_table(rows: Mapping[str, str]) -> str:
    """Two aligned columns."""
    width = max(map(len, rows), default=0)
    return "\n".join(f"  {name:{width}}  {value}" for name, value in rows.items())


def format_columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns under a header."""
    table = [header, *rows]
    widths = [max(len(row[k]) for row in table) for k in range(len(header))]
    lines = ["  ".join(f"{cell:{w}}" for cell, w in zip(row, widths, strict=True)) for row in table]
    return "\n".join("  " + line.rstrip() for line in lines)


def formatted(name: str, value: float) -> str:
    """A metric as it is shown."""
    return f"{value:,.0f}" if name.endswith("/tokens") else f"{value:.4f}"


def report_rows(reports: Sequence[Report]) -> dict[str, str]:
    """Metrics ready for a table: of several lanes mean ± sample standard deviation, and each.

    A lane that ended before its first evaluation has a dash, and no part in the mean.
    """
    rows: dict[str, str] = {}
    for name in dict.fromkeys(name for report in reports for name in report):
        values = [report[name] for report in reports if name in report]
        rows[name] = formatted(name, values[0])
        if len(reports) > 1:
            each = ", ".join(formatted(name, r[name]) if name in r else "-" for r in reports)
            deviation = np.std(values, ddof=1) if len(values) > 1 else math.nan
            rows[name] = f"{np.mean(values):.4f} ± {deviation:.4f}  ({each})"
    return rows


def summarise(summary: Summary, task: Task) -> str:
    """The table at the end of a run."""
    where = " on the test split itself" if task.card.validates_on_test else ""
    ended = "early stop" if summary.stopped_early else "all steps done"
    best_steps = ", ".join(map(str, summary.best_step))
    return format_table(
        {
            "updates": f"{summary.steps} ({ended})",
            "best validation": f"after update {best_steps}{where}",
            **report_rows(summary.best),
            **task.context(),
            "examples a second": f"{summary.timing['examples_per_second']:.1f}",
            "waiting for data": f"{summary.timing['data_wait_share']:.1%}",
        }
    )
