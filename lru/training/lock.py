"""One process a folder: a lock on a file in it, which ends with the process at the latest."""

import logging
import os
import socket
from pathlib import Path
from typing import TextIO

try:
    import fcntl
except ImportError:  # Windows has no such locks.
    fcntl = None

logger = logging.getLogger(__name__)

_held: dict[Path, TextIO] = {}


class InUseError(OSError):
    """Another process trains in the folder."""


def lock(folder: Path) -> None:
    """Keep other processes from training in a folder, until `unlock` or the end of this one.

    Goes on, with a warning, where the file system has no locks.

    Raises:
        InUseError: if another process has it.
    """
    folder = folder.resolve()
    if fcntl is None or folder in _held:
        return
    file = (folder / ".lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with file:
            file.seek(0)
            owner = file.read().strip() or "another process"
        raise InUseError(
            f"the run in {folder} is being trained by {owner}; wait for it, or choose another "
            "--name"
        ) from None
    except OSError as error:
        file.close()
        logger.warning("%s cannot be locked (%s): start no second process on it", folder, error)
        return
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    _held[folder] = file


def unlock(folder: Path) -> None:
    """Let other processes train there; does nothing if this one does not have the lock."""
    file = _held.pop(folder.resolve(), None)
    if file is not None:
        file.close()
