import hashlib
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lru.dataloaders import fetch
from lru.dataloaders.fetch import MIRROR_VARIABLE, ChecksumError, DownloadError, Source, download

CONTENT = bytes(range(256)) * 4096


class Site(ThreadingHTTPServer):
    """Serves CONTENT at any path but /missing; may ignore ranges or break off."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges = True
        self.breaks_after: int | None = None
        self.requests: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def source(self, name: str = "set/file.bin") -> Source:
        return Source(f"{self.url}/{name}", hashlib.sha256(CONTENT).hexdigest(), name)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        site = self.server
        assert isinstance(site, Site)
        wanted = self.headers["Range"]
        site.requests.append((self.path, wanted))
        if self.path == "/missing":
            self.send_error(404)
            return
        start = 0
        if wanted and site.ranges:
            match = re.fullmatch(r"bytes=(\d+)-", wanted)
            assert match
            start = int(match[1])
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start : site.breaks_after])

    def log_message(self, format: str, *args: object) -> None:
        del format, args


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.delenv(MIRROR_VARIABLE, raising=False)
    with Site() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_file_is_fetched_once(site, tmp_path):
    path = download(site.source(), tmp_path)
    assert path == tmp_path / "set" / "file.bin"
    assert path.read_bytes() == CONTENT
    assert download(site.source(), tmp_path) == path
    assert site.requests == [("/set/file.bin", None)]
    assert [file.name for file in path.parent.iterdir()] == ["file.bin"]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_transfer_goes_on_where_it_stopped(site, tmp_path, ranges):
    site.breaks_after = 300_000
    with pytest.raises(DownloadError, match="ended after 300000 of 1048576 bytes"):
        download(site.source(), tmp_path)
    target = tmp_path / "set" / "file.bin"
    assert not target.exists()
    assert target.with_name("file.bin.part").stat().st_size == 300_000
    site.breaks_after, site.ranges = None, ranges
    assert download(site.source(), tmp_path).read_bytes() == CONTENT
    assert site.requests[-1] == ("/set/file.bin", "bytes=300000-")


def test_a_part_that_is_already_whole_is_taken(site, tmp_path):
    part = tmp_path / "set" / "file.bin.part"
    part.parent.mkdir()
    part.write_bytes(CONTENT)
    assert download(site.source(), tmp_path).read_bytes() == CONTENT


def test_a_wrong_file_is_set_aside_and_the_next_try_starts_afresh(site, tmp_path):
    part = tmp_path / "set" / "file.bin.part"
    part.parent.mkdir()
    part.write_bytes(b"the start of another file")
    with pytest.raises(ChecksumError, match=r"file\.bin has sha256 .* is expected.*\.corrupt"):
        download(site.source(), tmp_path)
    assert {path.name for path in part.parent.iterdir()} == {"file.bin.corrupt"}
    assert download(site.source(), tmp_path).read_bytes() == CONTENT


def test_a_wrong_file_under_the_right_name_is_set_aside(site, tmp_path):
    target = tmp_path / "set" / "file.bin"
    target.parent.mkdir()
    target.write_bytes(b"truncated")
    with pytest.raises(ChecksumError, match="set aside"):
        download(site.source(), tmp_path)
    assert target.with_name("file.bin.corrupt").read_bytes() == b"truncated"
    assert not target.exists()
    assert site.requests == []


def test_a_missing_file_says_what_to_do(site, tmp_path):
    source = Source(f"{site.url}/missing", "0" * 64, "set/file.bin")
    with pytest.raises(DownloadError) as caught:
        download(source, tmp_path)
    assert f"{site.url}/missing (HTTP Error 404" in str(caught.value)
    assert f"by hand and put it at {tmp_path / 'set' / 'file.bin'}" in str(caught.value)
    assert MIRROR_VARIABLE in str(caught.value)


def test_no_server_is_a_download_error(tmp_path):
    source = Source("http://127.0.0.1:9/file", "0" * 64, "file")
    with pytest.raises(DownloadError, match="refused"):
        download(source, tmp_path)


def test_a_mirror_is_asked_instead(site, tmp_path, monkeypatch):
    monkeypatch.setenv(MIRROR_VARIABLE, f"{site.url}/mirror/")
    source = Source("http://unreachable.invalid/a.bin", site.source().sha256, "set/b.bin")
    assert download(source, tmp_path).read_bytes() == CONTENT
    assert site.requests == [("/mirror/set/b.bin", None)]


def test_two_at_once_fetch_it_once(site, tmp_path, monkeypatch):
    transfer, started, go = fetch._transfer, threading.Event(), threading.Event()

    def slow(url, file):
        started.set()
        assert go.wait(10)
        transfer(url, file)

    monkeypatch.setattr(fetch, "_transfer", slow)
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(download(site.source(), tmp_path)))
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
