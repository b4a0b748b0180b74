"""Downloads: public files into the raw folder, resumable and verified by sha256."""

import hashlib
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from tqdm import tqdm

try:
    import fcntl
except ImportError:
    fcntl = None

MIRROR_VARIABLE = "LRU_DATA_MIRROR"
"""Environment variable: base URL that has the sources under their relative file names."""

TIMEOUT_SECONDS = 30.0

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
        sha256: hex digest of its bytes.
        filename: where it goes, relative to the raw folder.
    """

    url: str
    sha256: str
    filename: str

    @property
    def location(self) -> str:
        """The URL to use: the mirror's, if one is set."""
        mirror = os.environ.get(MIRROR_VARIABLE)
        return f"{mirror.rstrip('/')}/{self.filename}" if mirror else self.url


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(source: Source, raw_dir: Path) -> Path:
    """Fetch `source` into `raw_dir`, unless it is there; its path.

    Bytes go to a file that ends in `.part`, which a later call continues; it gets its name only if
    its sha256 is right. A file with another sha256 is set aside under a name in `.corrupt`.

    Raises:
        ChecksumError: if the file that came, or that was there, has another sha256.
        DownloadError: if the file cannot be fetched.
    """
    target = raw_dir / source.filename
    if target.exists():
        _verify(target, target, source)
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    with part.open("ab") as file:
        _wait_for_others(file)
        if target.exists():
            # Another process had it finished while this one waited.
            _verify(target, target, source)
            return target
        try:
            _transfer(source.location, file)
        except (OSError, HTTPException) as error:
            raise DownloadError(
                f"cannot download {source.location} ({error}); try again to go on where it "
                f"stopped, fetch it by hand and put it at {target}, or set {MIRROR_VARIABLE} to a "
                f"base URL that has {source.filename}"
            ) from error
        _verify(part, target, source)
        part.replace(target)
    return target


def _wait_for_others(file: BinaryIO) -> None:
    """Lock the file until it is closed, where the system can (not on Windows)."""
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX)


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


def _verify(path: Path, target: Path, source: Source) -> None:
    found = sha256_of(path)
    if found == source.sha256:
        return
    aside = target.with_name(target.name + ".corrupt")
    path.replace(aside)
    raise ChecksumError(
        f"{target.name} has sha256 {found}, but {source.sha256} is expected; it was set aside as "
        f"{aside}; try again, or fetch {source.url} by hand and put it at {target}"
    )
