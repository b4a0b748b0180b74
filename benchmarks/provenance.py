"""Where, when and with what a measurement was made."""

import datetime
import os
import platform
import shlex
import sys
from pathlib import Path

import jax


def processor() -> str:
    """The processor's name, as far as the system tells it."""
    description = Path("/proc/cpuinfo")
    lines = description.read_text().splitlines() if description.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def provenance() -> dict[str, str]:
    """Command, date, versions and machine."""
    return {
        "command": shlex.join(["python", *sys.argv]),
        "date": datetime.date.today().isoformat(),
        "jax": jax.__version__,
        "python": platform.python_version(),
        "machine": f"{os.cpu_count()} cores, {processor()}, {jax.devices()[0].device_kind}",
    }
