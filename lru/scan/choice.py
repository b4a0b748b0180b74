"""The method that `auto` stands for: the fastest one of a table of measurements, `choice.json`.

The table is written by `benchmarks/choose.py`, which states there where and how it was measured.
Its rows are ordered methods for a platform, a problem ("linear" or "dense"), a constant or varying
factor, real or complex numbers and the least numbers of steps and, on a GPU, of lanes B N; the
first method that this machine has is taken. What was not measured has one row for everything.
"""

import json
import logging
import re
from functools import cache
from pathlib import Path
from typing import Any

import jax

from lru.scan import cpu

logger = logging.getLogger(__name__)

TABLE = Path(__file__).with_suffix(".json")


@cache
def table() -> dict[str, Any]:
    """The table as it is on disk."""
    return json.loads(TABLE.read_text())


@cache
def automatic(
    platform: str, problem: str, varying: bool, is_complex: bool, steps: int, lanes: int
) -> str:
    """The method for a problem; cached, so that each choice is logged once.

    Args:
        platform: a JAX back end, "cpu", "gpu" or "tpu".
        problem: "linear" or "dense".
        varying: whether the factor varies over time.
        is_complex: whether states are complex.
        steps: number T of steps.
        lanes: number B N of recurrences that run beside each other.
    """
    factor = "varying" if varying else "constant"
    number = "complex" if is_complex else "real"
    ranking = _ranking(platform, (problem, factor, number), steps, lanes)
    method = next(name for name in ranking if _available(name, problem))
    logger.info(
        "scan method on %s, %s %s problem, %s factor, %d steps, %d lanes: %s",
        *(platform, number, problem, factor, steps, lanes, method),
    )
    return method


def _ranking(platform: str, kind: tuple[str, str, str], steps: int, lanes: int) -> list[str]:
    unmeasured: dict[str, list[str]] = table()["not_measured"]
    rows = [
        row
        for row in table()["measured"]
        if row["platform"] == platform
        and (row["problem"], row["factor"], row["number"]) == kind
        and row["least_steps"] <= steps
        and row.get("least_lanes", 1) <= lanes
    ]
    if not rows:
        return unmeasured.get(platform, unmeasured["other"])
    last = max(rows, key=lambda row: (row["least_steps"], row.get("least_lanes", 1)))
    return last["methods"]


def _available(method: str, problem: str) -> bool:
    if method == "pallas":
        return _one_device_of_triton()
    return method != "native" or cpu.available(problem)


def _one_device_of_triton() -> bool:
    """True if there is one device, of CUDA's compute capability 8.0 or more.

    Several devices may share a batch, which the partitioner would gather for a kernel.
    """
    devices = jax.devices()
    capability = re.fullmatch(r"(\d+)\.\d+", getattr(devices[0], "compute_capability", ""))
    return len(devices) == 1 and capability is not None and int(capability[1]) >= 8
