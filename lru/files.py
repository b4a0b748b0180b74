"""Files that are whole or not there, and folders that can be written to."""

import errno
import os
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file so that a reader, or a crash, meets the old content or the new."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def make_folder(folder: Path, flag: str) -> None:
    """Make a folder, and those above it, unless it is there.

    Args:
        folder: what to make.
        flag: that names it or one above it, for the error.

    Raises:
        OSError: naming the flag, if it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise type(error)(
            f"{flag} must be a folder that can be made or written to, but {folder} cannot: "
            f"{error.strerror}"
        ) from error
