"""Machine, time and versions of a measurement, and its file."""

import datetime
import json
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

import jax

from lru.files import write_atomically


def processor() -> str:
    """The processor's name, as far as the system tells it."""
    description = Path("/proc/cpuinfo")
    lines = description.read_text().splitlines() if description.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def provenance() -> dict[str, str]:
    """Command, date, versions and machine."""
    script = Path(sys.argv[0])
    return {
        "command": shlex.join(["python", "-m", f"benchmarks.{script.stem}", *sys.argv[1:]]),
        "date": datetime.date.today().isoformat(),
        "jax": jax.__version__,
        "python": platform.python_version(),
        "machine": f"{os.cpu_count()} cores, {processor()}, {jax.devices()[0].device_kind}",
    }


def save(path: Path, results: dict[str, Any]) -> None:
    """Write results as JSON, whole or not at all."""
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, (json.dumps(results, indent=1) + "\n").encode())
