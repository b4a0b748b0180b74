"""Record of the machine and the code: a line of environment.jsonl in the run for each start."""

import datetime
import hashlib
import json
import logging
import os
import platform
import shlex
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

from lru.files import write_atomically

logger = logging.getLogger(__name__)

PACKAGES = (
    *("lru-jax", "jax", "jaxlib", "jax-cuda12-plugin", "jax-cuda13-plugin", "libtpu"),
    *("flax", "optax", "orbax-checkpoint", "grain", "numpy", "torch", "tensorboardX", "wandb"),
)
"""Those whose versions may change what a run does."""

LARGEST_DIFF = 2**20
MOST_UNTRACKED = 1000

_GIT_SECONDS = 5.0


def record_environment(folder: Path) -> dict[str, Any]:
    """Append what this process runs on to environment.jsonl, with the changes that git sees.

    They are a file of their own, git-HASH.diff, cut after `LARGEST_DIFF` bytes. A folder that
    cannot be written to is warned of.

    Args:
        folder: of the run.

    Returns:
        What was recorded, by name.
    """
    git, diff = _git()
    record = {
        "time": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": shlex.join(sys.orig_argv),
        "host": platform.node(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES if _version(name)},
        "devices": [f"{device.device_kind} ({device.platform})" for device in jax.devices()],
        "processes": jax.process_count(),
        "cores": os.cpu_count(),
        "git": git,
    }
    try:
        if git and git["diff"]:
            write_atomically(folder / git["diff"], diff)
        with (folder / "environment.jsonl").open("ab") as file:
            file.write(json.dumps(record).encode() + b"\n")
    except OSError as error:
        logger.warning("the environment could not be recorded: %s", error)
    return record


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git() -> tuple[dict[str, Any] | None, bytes]:
    """The state of the work tree around the working directory, or around this package.

    Returns:
        Commit, changes and files that git does not track, None outside a work tree; the changes.
    """
    give_up = time.monotonic() + _GIT_SECONDS

    def output(place: Path, *arguments: str) -> bytes | None:
        command = ["git", "--no-optional-locks", "-C", str(place), *arguments]
        left = give_up - time.monotonic()
        try:
            return subprocess.run(command, capture_output=True, check=True, timeout=left).stdout
        except (OSError, subprocess.SubprocessError):
            return None

    for place in (Path(), Path(__file__).parent):
        found = output(place, "rev-parse", "--show-toplevel", "HEAD")
        if found is None:
            continue
        root, commit = found.decode(errors="replace").split("\n")[:2]
        diff = output(Path(root), "diff", "HEAD", "--no-color", "--no-ext-diff")
        others = output(Path(root), "ls-files", "-z", "--others", "--exclude-standard")
        untracked = (others or b"").decode(errors="replace").split("\0")[:-1]
        state = {
            "root": root,
            "commit": commit,
            "dirty": None if diff is None else bool(diff),
            "diff": f"git-{hashlib.sha256(diff).hexdigest()[:8]}.diff" if diff else None,
            "untracked": untracked[:MOST_UNTRACKED],
            "n_untracked": len(untracked),
        }
        if diff is not None and len(diff) > LARGEST_DIFF:
            note = f"\n(cut after {LARGEST_DIFF} of {len(diff)} bytes)\n"
            diff = diff[:LARGEST_DIFF] + note.encode()
        return state, diff or b""
    return None, b""
