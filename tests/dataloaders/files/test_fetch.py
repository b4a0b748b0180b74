import dataclasses
import errno
import threading
from hashlib import sha256

import pytest

from lru.dataloaders.files import fetch
from lru.dataloaders.files.fetch import (
    MIRROR_VARIABLE,
    ChecksumError,
    DownloadError,
    Source,
    download,
)

from ..site import Site

CONTENT = bytes(range(256)) * 4096


@pytest.fixture
def source(site: Site) -> Source:
    """A file that the site has."""
    site.files["set/file.bin"] = CONTENT
    return Source(f"{site.url}/set/file.bin", sha256(CONTENT).hexdigest(), "set/file.bin")


def test_a_file_is_fetched_once(site, source, tmp_path):
    path = download(source, tmp_path)
    assert path == tmp_path / "set" / "file.bin"
    assert path.read_bytes() == CONTENT
    assert download(source, tmp_path) == path
    assert site.requests == [("/set/file.bin", None)]
    assert [file.name for file in path.parent.iterdir()] == ["file.bin"]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_transfer_goes_on_where_it_stopped(site, source, tmp_path, ranges):
    site.breaks_after, total = 100_000, 100_000 * (1 + len(fetch.BACK_OFF_SECONDS))
    with pytest.raises(DownloadError, match=f"ended after {total} of 1048576 bytes"):
        download(source, tmp_path)
    target = tmp_path / "set" / "file.bin"
    assert not target.exists()
    assert target.with_name("file.bin.part").stat().st_size == total
    assert [wanted for _, wanted in site.requests] == [
        None,
        *(f"bytes={start}-" for start in range(100_000, total, 100_000)),
    ]
    site.breaks_after, site.ranges = None, ranges
    assert download(source, tmp_path).read_bytes() == CONTENT
    assert site.requests[-1] == ("/set/file.bin", f"bytes={total}-")


@pytest.mark.parametrize(("status", "tries"), [(503, 4), (429, 4), (404, 1), (403, 1)])
def test_errors_that_may_pass_are_waited_out(site, source, tmp_path, status, tries):
    site.statuses = [status] * 10
    with pytest.raises(DownloadError, match=f"HTTP Error {status}"):
        download(source, tmp_path)
    assert len(site.requests) == tries
    site.statuses = [503] * 3
    assert download(source, tmp_path).read_bytes() == CONTENT


def test_a_full_disk_is_not_tried_again(site, source, tmp_path, monkeypatch):
    def full(url, file):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fetch, "_transfer", full)
    monkeypatch.setattr(fetch.time, "sleep", None)
    with pytest.raises(DownloadError, match="No space left"):
        download(source, tmp_path)


def test_the_first_content_is_pinned_where_no_sha256_is_known(site, source, tmp_path):
    unknown = dataclasses.replace(source, sha256=None)
    path = download(unknown, tmp_path)
    pin = path.with_name("file.bin.sha256")
    assert pin.read_text() == f"{source.sha256}  file.bin\n"
    assert download(unknown, tmp_path) == path
    site.files["set/file.bin"] = b"another"
    for _ in range(2):
        path.write_bytes(b"another")
        with pytest.raises(
            ChecksumError, match=rf"sha256 .* first download \(in {pin}\), is expec"
        ):
            download(unknown, tmp_path)
        assert not path.exists()
        with pytest.raises(ChecksumError, match="delete that file to take another"):
            download(unknown, tmp_path)
    pin.unlink()
    assert download(unknown, tmp_path).read_bytes() == b"another"


def test_a_part_that_is_already_whole_is_taken(site, source, tmp_path):
    part = tmp_path / "set" / "file.bin.part"
    part.parent.mkdir()
    part.write_bytes(CONTENT)
    assert download(source, tmp_path).read_bytes() == CONTENT


def test_a_wrong_file_is_set_aside_and_the_next_try_starts_afresh(site, source, tmp_path):
    part = tmp_path / "set" / "file.bin.part"
    part.parent.mkdir()
    part.write_bytes(b"the start of another file")
    with pytest.raises(ChecksumError, match=r"file\.bin has sha256 .* is expected.*\.corrupt"):
        download(source, tmp_path)
    assert {path.name for path in part.parent.iterdir()} == {"file.bin.corrupt"}
    assert download(source, tmp_path).read_bytes() == CONTENT


def test_a_wrong_file_under_the_right_name_is_set_aside(site, source, tmp_path):
    target = tmp_path / "set" / "file.bin"
    target.parent.mkdir()
    target.write_bytes(b"truncated")
    with pytest.raises(ChecksumError, match="set aside"):
        download(source, tmp_path)
    assert target.with_name("file.bin.corrupt").read_bytes() == b"truncated"
    assert not target.exists()
    assert site.requests == []


def test_a_missing_file_says_what_to_do(site, source, tmp_path):
    source = dataclasses.replace(source, url=f"{site.url}/missing")
    with pytest.raises(DownloadError) as caught:
        download(source, tmp_path)
    assert f"{site.url}/missing (HTTP Error 404" in str(caught.value)
    assert f"by hand and put it at {tmp_path / 'set' / 'file.bin'}" in str(caught.value)
    assert MIRROR_VARIABLE in str(caught.value)
    assert list((tmp_path / "set").iterdir()) == []


def test_no_server_is_a_download_error(tmp_path):
    source = Source("http://127.0.0.1:9/file", "0" * 64, "file")
    with pytest.raises(DownloadError, match="refused"):
        download(source, tmp_path)


def test_a_mirror_is_asked_instead(site, source, tmp_path, monkeypatch):
    monkeypatch.setenv(MIRROR_VARIABLE, f"{site.url}/mirror/")
    site.files["mirror/set/file.bin"] = site.files["other/set/file.bin"] = CONTENT
    source = dataclasses.replace(source, url="http://unreachable.invalid/a.bin")
    assert download(source, tmp_path / "1").read_bytes() == CONTENT
    assert download(source, tmp_path / "2", f"{site.url}/other").read_bytes() == CONTENT
    assert [path for path, _ in site.requests] == ["/mirror/set/file.bin", "/other/set/file.bin"]


def test_a_mirror_may_be_a_folder(source, tmp_path, monkeypatch):
    mirrored = tmp_path / "a mirror" / "set" / "file.bin"
    mirrored.parent.mkdir(parents=True)
    mirrored.write_bytes(CONTENT)
    assert download(source, tmp_path / "1", str(tmp_path / "a mirror")).read_bytes() == CONTENT
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(MIRROR_VARIABLE, "a mirror")
    assert download(source, tmp_path / "2").read_bytes() == CONTENT


@pytest.mark.parametrize("mirror", ["no/such/folder", "example.org/data", "c:\\data"])
def test_a_mirror_that_is_no_url_is_named(source, tmp_path, mirror):
    with pytest.raises(DownloadError, match=f"--mirror or {MIRROR_VARIABLE} must be a URL"):
        download(source, tmp_path / "raw", mirror)
    assert not (tmp_path / "raw").exists()


def test_two_at_once_fetch_it_once(site, source, tmp_path, monkeypatch):
    transfer, started, go = fetch._transfer, threading.Event(), threading.Event()

    def slow(url, file):
        started.set()
        assert go.wait(10)
        transfer(url, file)

    monkeypatch.setattr(fetch, "_transfer", slow)
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(download(source, tmp_path)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    assert started.wait(10)
    go.set()
    for thread in threads:
        thread.join()
    assert [path.read_bytes() == CONTENT for path in results] == [True, True]
    assert len(site.requests) == 1
