"""Downloads: public files into the raw folder, resumable and verified by sha256."""

import hashlib
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from ssl import SSLError
from typing import BinaryIO
from urllib.parse import urlsplit

from tqdm import tqdm

from lru.files import make_folder, write_atomically

try:
    import fcntl
except ImportError:
    fcntl = None

MIRROR_VARIABLE = "LRU_DATA_MIRROR"
"""Environment variable: base URL, or folder, that has the sources under their relative names."""

TIMEOUT_SECONDS = 30.0
BACK_OFF_SECONDS = (1.0, 4.0, 16.0)
"""Waits before a transfer that broke off goes on; after the last it fails."""

_SCHEMES = ("http", "https", "ftp", "file")
_PASSING_STATUSES = (408, 425, 429, 500, 502, 503, 504)
_CHUNK = 1 << 20


class DownloadError(RuntimeError):
    """A file that could not be fetched; the message says what to do by hand."""


class ChecksumError(DownloadError):
    """A file that came, but is not the one expected."""


@dataclass(frozen=True)
class Source:
    """A public file.

    Attributes:
        url: where it is.
        sha256: hex digest of its bytes; None if none is known: then that of the first download is
            pinned in a file next to it, and whatever has another one later is refused.
        filename: where it goes, relative to the raw folder.
        unpacked: of an archive, the folder that it becomes, relative to the raw folder.
        member: the folder within the archive that becomes `unpacked`; "" for all of it.
    """

    url: str
    sha256: str | None
    filename: str
    unpacked: str | None = None
    member: str = ""

    def location(self, mirror: str | None = None) -> str:
        """The URL to use: that of `mirror`, or of the environment's mirror, or its own."""
        mirror = mirror or os.environ.get(MIRROR_VARIABLE)
        return f"{_base_url(mirror)}/{self.filename}" if mirror else self.url


def _base_url(mirror: str) -> str:
    """The mirror as a URL without a slash at its end.

    Raises:
        DownloadError: if it is neither a URL nor a folder.
    """
    if Path(mirror).is_dir():
        mirror = Path(mirror).resolve().as_uri()
    if urlsplit(mirror).scheme not in _SCHEMES:
        raise DownloadError(
            f"--mirror or {MIRROR_VARIABLE} must be a URL ({', '.join(_SCHEMES)}) or a folder, got "
            f"{mirror!r}"
        )
    return mirror.rstrip("/")


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(source: Source, raw_dir: Path, mirror: str | None = None) -> Path:
    """Fetch `source` into `raw_dir`, unless it is there; its path.

    Bytes go to a file that ends in `.part`, which is continued after a break, by this call or a
    later one; it gets its name only if its sha256 is right. A file with another sha256 is set aside
    under a name in `.corrupt`.

    Args:
        source: what to fetch.
        raw_dir: where it goes.
        mirror: base URL, or folder, to use instead of the source's own.

    Raises:
        ChecksumError: if the file that came, or that was there, has another sha256.
        DownloadError: if the file cannot be fetched, or the mirror is none.
        OSError: if the folder cannot be made or written to.
    """
    target = raw_dir / source.filename
    if target.exists():
        _verify(target, target, source)
        return target
    url = source.location(mirror)
    make_folder(target.parent, "raw_dir")
    part = target.with_name(target.name + ".part")
    with _locked(part) as file:
        if target.exists():
            # Another process had it finished while this one waited.
            _verify(target, target, source)
            return target
        try:
            _transfer_patiently(url, file)
        except (OSError, HTTPException) as error:
            raise DownloadError(
                f"cannot download {url} ({error}); try again to go on where it "
                f"stopped, fetch it by hand and put it at {target}, or set {MIRROR_VARIABLE} to a "
                f"base URL that has {source.filename}"
            ) from error
        _verify(part, target, source)
        part.replace(target)
    return target


def set_aside(target: Path) -> Path:
    """Rename a file that cannot be unpacked, and forget its pinned sha256; its new name."""
    _pin(target).unlink(missing_ok=True)
    return target.replace(_aside(target))


@contextmanager
def _locked(part: Path) -> Iterator[BinaryIO]:
    """The file to append to, locked where the system can (not on Windows); not left if empty."""
    while True:
        file = part.open("ab")
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        if _is_at(part, file):
            break
        # Another process had it finished or removed while this one waited.
        file.close()
    try:
        yield file
    finally:
        if _is_at(part, file) and not part.stat().st_size:
            with suppress(PermissionError):
                part.unlink()
        file.close()


def _is_at(path: Path, file: BinaryIO) -> bool:
    """True if the open file has this name."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _transfer_patiently(url: str, file: BinaryIO) -> None:
    """Transfer, and go on after breaks that may pass."""
    for wait in BACK_OFF_SECONDS:
        try:
            return _transfer(url, file)
        except (OSError, HTTPException) as error:
            if not _may_pass(error):
                raise
        time.sleep(wait)
    _transfer(url, file)


def _may_pass(error: OSError | HTTPException) -> bool:
    """True to try again: not if there is no such server or file, nor if the disk is full."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code in _PASSING_STATUSES
    if isinstance(error, urllib.error.URLError):
        return isinstance(error.reason, TimeoutError)
    return isinstance(error, ConnectionError | TimeoutError | SSLError | HTTPException)


def _transfer(url: str, file: BinaryIO) -> None:
    """Append to `file` what is missing of the contents of `url`."""
    have = file.seek(0, os.SEEK_END)
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:
            return
        raise
    with response:
        resumed = response.status == 206
        start = have if resumed else 0
        remaining = response.headers.get("Content-Length")
        expected = None if remaining is None else start + int(remaining)
        file.truncate(start)
        with tqdm(
            desc=Path(urlsplit(url).path).name,
            initial=start,
            total=expected,
            unit="B",
            unit_scale=True,
            leave=False,
        ) as bar:
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
    file.flush()
    size = file.seek(0, os.SEEK_END)
    if expected is not None and size < expected:
        raise ConnectionError(f"it ended after {size} of {expected} bytes")


def _verify(content: Path, target: Path, source: Source) -> None:
    """Refuse the wrong content; pin the sha256 of the first that comes where none is known."""
    found = sha256_of(content)
    expected = source.sha256 or _pinned(target)
    if expected is None:
        write_atomically(_pin(target), f"{found}  {target.name}\n".encode())
    elif found != expected:
        since, unless = "", ""
        if source.sha256 is None:
            since = f", that of its first download (in {_pin(target)}),"
            unless = ", or delete that file to take another"
        aside = content.replace(_aside(target))
        raise ChecksumError(
            f"{target.name} has sha256 {found}, but {expected}{since} is expected; it was set "
            f"aside as {aside}; try again, or fetch {source.url} by hand and put it at {target}"
            f"{unless}"
        )


def _aside(target: Path) -> Path:
    """The name of a file that is no good."""
    return target.with_name(target.name + ".corrupt")


def _pin(target: Path) -> Path:
    """The file with the sha256 of `target`, as `sha256sum` writes it."""
    return target.with_name(target.name + ".sha256")


def _pinned(target: Path) -> str | None:
    pin = _pin(target)
    return pin.read_text().split()[0] if pin.exists() else None
