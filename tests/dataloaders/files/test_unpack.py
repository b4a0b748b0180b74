import gzip
import io
import stat
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from lru.dataloaders.files import unpack as module
from lru.dataloaders.files.unpack import ArchiveError, unpack

FILES = {"set/a.txt": b"one", "set/deep/b.bin": bytes(300_000), "other/c.txt": b""}


def tar(path: Path, files: dict[str, bytes], *extra: tarfile.TarInfo, mode: str = "w:gz") -> Path:
    """A tar archive of files and of further entries."""
    with tarfile.open(path, mode) as archive:  # pyright: ignore
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        for entry in extra:
            archive.addfile(entry)
    return path


def packed(path: Path, files: dict[str, bytes]) -> Path:
    """A zip archive of files."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def entry(name: str, kind: bytes, to: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, to
    return made


def tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz", "zip"])
def test_an_archive_becomes_a_folder(tmp_path, mode):
    path = tmp_path / "archive"
    _ = packed(path, FILES) if mode == "zip" else tar(path, FILES, mode=mode)
    unpack(path, tmp_path / "all")
    assert tree(tmp_path / "all") == FILES
    unpack(path, tmp_path / "made" / "part", "set")
    assert tree(tmp_path / "made" / "part") == {"a.txt": b"one", "deep/b.bin": bytes(300_000)}
    unpack(tmp_path / "not there", tmp_path / "all")


def test_names_may_begin_with_a_dot_and_folders_have_no_say(tmp_path):
    folder = entry("./set", tarfile.DIRTYPE)
    folder.mode = 0
    path = tar(tmp_path / "a.tgz", {"./set/a.txt": b"one"}, folder)
    unpack(path, tmp_path / "set", "set")
    assert tree(tmp_path / "set") == {"a.txt": b"one"}
    assert stat.S_IMODE((tmp_path / "set" / "a.txt").stat().st_mode) & 0o600 == 0o600


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (entry("../x", tarfile.REGTYPE), "holds '../x', which may lie outside"),
        (entry("set/../../x", tarfile.REGTYPE), "may lie outside"),
        (entry("/tmp/x", tarfile.REGTYPE), "holds '/tmp/x', which may lie outside"),
        (entry("set\\..\\x", tarfile.REGTYPE), "may lie outside"),
        (entry("C:x", tarfile.REGTYPE), "may lie outside"),
        (entry("../d", tarfile.DIRTYPE), "may lie outside"),
        (entry("set/s", tarfile.SYMTYPE, "/etc"), "holds 'set/s', which is neither a file nor"),
        (entry("set/s", tarfile.SYMTYPE, "a.txt"), "neither a file nor a folder"),
        (entry("set/h", tarfile.LNKTYPE, "set/a.txt"), "neither a file nor a folder"),
        (entry("other/d", tarfile.CHRTYPE), "holds 'other/d', which is neither a file nor"),
        (entry("set/d", tarfile.BLKTYPE), "neither a file nor a folder"),
        (entry("set/f", tarfile.FIFOTYPE), "neither a file nor a folder"),
        (entry("set/a.txt/b", tarfile.REGTYPE), "one name for a file and a folder"),
        (entry("set/deep", tarfile.REGTYPE), "one name for a file and a folder"),
    ],
)
def test_what_is_no_plain_file_within_is_refused_and_nothing_is_left(tmp_path, bad, message):
    path = tar(tmp_path / "a.tgz", FILES, bad)
    with pytest.raises(ArchiveError, match=rf"a\.tgz {message}|a\.tgz .*{message}"):
        unpack(path, tmp_path / "out" / "set", "set")
    assert list((tmp_path / "out").iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tgz", "out"]


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a\\..\\..\\x"])
def test_zip_archives_are_held_to_the_same(tmp_path, name):
    path = packed(tmp_path / "a.zip", FILES | {name: b"x"})
    with pytest.raises(ArchiveError, match="may lie outside"):
        unpack(path, tmp_path / "out" / "set")
    link = zipfile.ZipInfo("set/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(ArchiveError, match="neither a file nor a folder"):
        unpack(path, tmp_path / "out" / "set")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz", "zip"])
def test_damaged_archives_are_named_and_nothing_is_left(tmp_path, mode):
    path = tmp_path / "archive"
    files = {"set/a.bin": bytes(range(256)) * 999}
    whole = (packed(path, files) if mode == "zip" else tar(path, files, mode=mode)).read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"<html>not found</html>"):
        path.write_bytes(content)
        with pytest.raises(ArchiveError, match="archive is truncated, damaged or no archive"):
            unpack(path, tmp_path / "out" / "set")
        assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("where", [0.25, 0.5, 0.75])
def test_a_flipped_byte_is_noticed(tmp_path, mode, where):
    # Random bytes are stored as they are, so that only the checksum at the end of gzip tells.
    content = np.random.default_rng(0).bytes(300_000)
    path = tar(tmp_path / "archive", {"set/a.bin": content, "z": b""}, mode=mode)
    damaged = bytearray(path.read_bytes())
    damaged[int(len(damaged) * where)] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(ArchiveError, match="archive is truncated, damaged or no archive"):
        unpack(path, tmp_path / "out" / "set", "set")
    assert list((tmp_path / "out").iterdir()) == []


def test_bombs_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 100_000)
    large = tar(tmp_path / "large.tgz", {"a": bytes(100_001)})
    many = tar(tmp_path / "many.tgz", {str(i): b"" for i in range(30)})
    trailing = tmp_path / "trailing.tgz"
    trailing.write_bytes(
        gzip.compress(tar(tmp_path / "a", {"a": b"x"}, mode="w").read_bytes() + bytes(200_000))
    )
    for path in (large, many, trailing):
        with pytest.raises(ArchiveError, match=r"tgz has more than 100,000 bytes"):
            unpack(path, tmp_path / "out" / "set")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_that_is_not_in_the_archive_is_an_error(tmp_path):
    with pytest.raises(ArchiveError, match="has no folder 'sets' with files in it"):
        unpack(tar(tmp_path / "a.tgz", FILES), tmp_path / "out" / "set", "sets")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_zip_that_understates_its_sizes_is_damaged(tmp_path):
    path = packed(tmp_path / "a.zip", {"a": bytes(1000)})
    content = path.read_bytes()
    stated = (1000).to_bytes(4, "little")
    path.write_bytes(content.replace(stated, (10).to_bytes(4, "little")))
    with pytest.raises(ArchiveError, match="damaged"):
        unpack(path, tmp_path / "out" / "set")
