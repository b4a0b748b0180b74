"""The last words of a run: tables of its numbers."""

from collections.abc import Mapping, Sequence

import numpy as np

from lru.tasks import Task
from lru.training.loop import Summary

Report = Mapping[str, float]

_SMALL = 1e-3
"""Below this, four decimals would say too little."""


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
    if name.endswith("/tokens"):
        return f"{value:,.0f}"
    return f"{value:.3g}" if 0 < abs(value) < _SMALL else f"{value:.4f}"


def with_deviation(name: str, values: Sequence[float]) -> str:
    """The mean ± sample standard deviation of a metric, or its only value, as it is shown."""
    # Infinities have no deviation, and not always a mean.
    with np.errstate(invalid="ignore"):
        mean = formatted(name, float(np.mean(values)))
        if len(values) == 1:
            return mean
        return f"{mean} ± {formatted(name, float(np.std(values, ddof=1)))}"


def from_to(numbers: Sequence[int]) -> str:
    """The least and the largest number, or the only one, as it is shown."""
    first, last = min(numbers), max(numbers)
    return f"{first:,}" if first == last else f"{first:,} to {last:,}"


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
            rows[name] = f"{with_deviation(name, values)}  ({each})"
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
