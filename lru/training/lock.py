"""One process a folder: a lock on a file in it, which ends with the process at the latest."""

import logging
import os
import socket
from contextlib import ExitStack
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has no such locks.
    fcntl = None

logger = logging.getLogger(__name__)

# Close the file, and with it the lock, of each folder.
_held: dict[Path, ExitStack] = {}


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
    path = folder / ".lock"
    try:
        with ExitStack() as opened:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            opened.callback(os.close, file)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(file, 0)
            os.write(file, f"process {os.getpid()} on {socket.gethostname()}".encode())
            _held[folder] = opened.pop_all()
    except BlockingIOError:
        raise InUseError(
            f"the run in {folder} is being trained by {path.read_text() or 'another process'}; "
            "wait for it, or choose another --name"
        ) from None
    except OSError as error:
        logger.warning("%s cannot be locked (%s): start no second process on it", folder, error)


def unlock(folder: Path) -> None:
    """Let other processes train there; does nothing if this one does not have the lock."""
    _held.pop(folder.resolve(), ExitStack()).close()
