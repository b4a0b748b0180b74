"""Reports on several runs: tables, plots, and one page that holds both."""

from lru.reports.results import Group, Repetition, grouped, repetitions_of
from lru.reports.write import write_report

__all__ = ["Group", "Repetition", "grouped", "repetitions_of", "write_report"]
