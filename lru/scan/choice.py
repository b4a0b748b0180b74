"""Which method `auto` stands for: the fastest one of a table of measurements, `choice.json`.

The table is written by `benchmarks/choose.py`, which states there where and how it was measured.
Its rows are ordered methods for a platform, a problem ("linear" or "dense"), a constant or varying
factor, real or complex numbers and a least number of steps; the first method that this machine has
is taken. A platform that was not measured has one row for everything, and says so.
"""

import json
import logging
from functools import cache
from pathlib import Path
from typing import Any

from lru.scan import cpu

logger = logging.getLogger(__name__)

TABLE = Path(__file__).with_suffix(".json")


@cache
def table() -> dict[str, Any]:
    """The table as it is on disk."""
    return json.loads(TABLE.read_text())


@cache
def automatic(platform: str, problem: str, varying: bool, is_complex: bool, steps: int) -> str:
    """The method for a problem; cached, so that each choice is logged once.

    Args:
        platform: a JAX back end, "cpu", "gpu" or "tpu".
        problem: "linear" or "dense".
        varying: whether the factor varies over time.
        is_complex: whether states are complex.
        steps: number T of steps.
    """
    factor = "varying" if varying else "constant"
    number = "complex" if is_complex else "real"
    ranking = _ranking(platform, (problem, factor, number), steps)
    method = next(name for name in ranking if _available(name))
    logger.info(
        "scan method on %s, %s %s problem, %s factor, %d steps: %s",
        *(platform, number, problem, factor, steps, method),
    )
    return method


def _ranking(platform: str, kind: tuple[str, str, str], steps: int) -> list[str]:
    unmeasured: dict[str, list[str]] = table()["not_measured"]
    if platform in unmeasured:
        return unmeasured[platform]
    rows = [
        row
        for row in table()["measured"]
        if row["platform"] == platform
        and (row["problem"], row["factor"], row["number"]) == kind
        and row["least_steps"] <= steps
    ]
    if not rows:
        return unmeasured["other"]
    return max(rows, key=lambda row: row["least_steps"])["methods"]


def _available(method: str) -> bool:
    if method != "native":
        return True
    problem = cpu.problem()
    if problem is not None:
        logger.warning("%s; slower methods take its place", problem)
    return problem is None
