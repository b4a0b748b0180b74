"""The last words of a run: a table of its numbers."""

from lru.training.loop import Metrics, Summary


def format_table(rows: dict[str, str]) -> str:
    """Two aligned columns."""
    width = max(map(len, rows))
    return "\n".join(f"  {name:{width}}  {value}" for name, value in rows.items())


def metric_rows(metrics: Metrics) -> dict[str, str]:
    """Metrics ready for a table."""
    return {
        name: f"{value:,.0f}" if name.endswith("/tokens") else f"{value:.4f}"
        for name, value in metrics.items()
    }


def summarise(summary: Summary, majority: float | None, *, selected_on_test: bool = False) -> str:
    """The table at the end of a run.

    Args:
        summary: of the run.
        majority: share of the test split's most frequent class; None if it is not known.
        selected_on_test: whether the validation split is the test split.
    """
    where = " on the test split itself (protocol=lra)" if selected_on_test else ""
    ended = "early stop" if summary.stopped_early else "all steps done"
    return format_table(
        {
            "updates": f"{summary.steps} ({ended})",
            "best validation": f"after update {summary.best_step}{where}",
            **metric_rows(summary.best),
            **({} if majority is None else {"test majority class": f"{majority:.4f}"}),
            "examples a second": f"{summary.timing['examples_per_second']:.1f}",
            "waiting for data": f"{summary.timing['data_wait_share']:.1%}",
        }
    )
