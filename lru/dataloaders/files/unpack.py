"""Archives into folders: nothing outside the folder, no links, no devices, not without end."""

import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from gzip import BadGzipFile
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Protocol, runtime_checkable

from tqdm import tqdm

from lru.dataloaders.store.cache import publish, staging

MOST_BYTES = 32 * 2**30
"""Size on disk beyond which an archive is taken for a bomb."""

_BLOCK = 4096
"""Least bytes that a file takes on disk."""
_CHUNK = 1 << 20


class ArchiveError(RuntimeError):
    """An archive that is damaged, or that would do more than fill a folder."""


def unpack(archive: Path, target: Path, member: str = "") -> None:
    """Unpack a tar (of any compression) or zip archive; `target` appears whole or not at all.

    Args:
        archive: the file.
        target: the folder to make; if it is there already, nothing happens.
        member: the folder within the archive whose content `target` gets; "" for all of it.

    Raises:
        ArchiveError: naming the archive and what is wrong with it; nothing is left then.
    """
    if target.exists():
        return
    root = PurePosixPath(member)
    with staging(target) as partial:
        try:
            entries = _zip_files if zipfile.is_zipfile(archive) else _tar_files
            room = MOST_BYTES
            for name, size, content in tqdm(
                entries(archive), desc=archive.name, unit=" files", leave=False, disable=None
            ):
                room -= max(size, _BLOCK)
                if room < 0:
                    raise _too_large(archive)
                if name.is_relative_to(root):
                    _write(content, size, partial / name.relative_to(root))
        except (
            tarfile.TarError,
            zipfile.BadZipFile,
            zlib.error,
            lzma.LZMAError,
            BadGzipFile,
            EOFError,
            NotImplementedError,
        ) as error:
            raise _damaged(archive, error) from error
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise ArchiveError(
                f"{archive} has one name for a file and a folder ({error})"
            ) from error
        except OSError as error:
            # bz2 has no error of its own; those of the system have a number.
            if error.errno is not None:
                raise
            raise _damaged(archive, error) from error
        if not any(partial.iterdir()):
            raise ArchiveError(f"{archive} has no folder {member!r} with files in it")
        publish(partial, target, lambda: True)


@runtime_checkable
class Content(Protocol):
    """Content of a file of an archive."""

    def read(self, size: int, /) -> bytes:
        """The next bytes, at most `size` of them."""
        ...


Files = Iterator[tuple[PurePosixPath, int, Content]]


def _tar_files(archive: Path) -> Files:
    """Name, size and content of each file."""
    with tarfile.open(archive) as tar:
        for entry in tar:
            name = _checked_name(archive, entry.name)
            if entry.isdir():
                continue
            content = tar.extractfile(entry) if entry.isreg() else None
            if content is None:
                raise _unsafe(archive, entry.name, "is neither a file nor a folder")
            yield name, entry.size, content
        assert tar.fileobj is not None
        _read_on(archive, tar.fileobj)


def _read_on(archive: Path, content: Content) -> None:
    """Read what follows the last entry: the checksum of a compressed file is checked at its end."""
    room = MOST_BYTES
    while chunk := content.read(_CHUNK):
        room -= len(chunk)
        if room < 0:
            raise _too_large(archive)


def _zip_files(archive: Path) -> Files:
    """Name, size and content of each file."""
    with zipfile.ZipFile(archive) as pack:
        for entry in pack.infolist():
            name = _checked_name(archive, entry.filename)
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _unsafe(archive, entry.filename, "is neither a file nor a folder")
            if entry.flag_bits & 1:
                raise ArchiveError(f"{archive} is encrypted")
            if not entry.is_dir():
                with pack.open(entry) as content:
                    yield name, entry.file_size, content


def _checked_name(archive: Path, name: str) -> PurePosixPath:
    """The name as a path within the folder.

    Raises:
        ArchiveError: if it may lie outside on some system.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or PureWindowsPath(name).drive:
        raise _unsafe(archive, name, "may lie outside the folder")
    return path


def _damaged(archive: Path, error: Exception) -> ArchiveError:
    reason = " ".join(str(error).split())
    return ArchiveError(f"{archive} is truncated, damaged or no archive ({reason})")


def _too_large(archive: Path) -> ArchiveError:
    return ArchiveError(f"{archive} has more than {MOST_BYTES:,} bytes")


def _unsafe(archive: Path, name: str, why: str) -> ArchiveError:
    return ArchiveError(f"{archive} holds {name!r}, which {why}: nothing of it was unpacked")


def _write(content: Content, size: int, path: Path) -> None:
    """Copy as many bytes as the archive says that there are; it must not have others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        while chunk := content.read(min(_CHUNK, size + 1)):
            size -= len(chunk)
            if size < 0:
                break
            file.write(chunk)
    if size:
        raise EOFError(f"{path.name} has not the size that is stated")
