"""Reports on several runs: tables, plots, and one page that holds both."""

from lru.reports.folder import write_report
from lru.reports.results import Group, Repetition, grouped, repetitions_of

__all__ = ["Group", "Repetition", "grouped", "repetitions_of", "write_report"]
