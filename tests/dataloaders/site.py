"""A web server on this machine that serves files from memory, and misbehaves on request."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Site(ThreadingHTTPServer):
    """Serves `files` by path.

    Attributes:
        files: content by path, without the first slash.
        ranges: whether it can begin in the middle.
        breaks_after: bytes after which it closes each connection, or None.
        statuses: errors that it answers the next requests with.
        requests: path and range of each request so far.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.ranges = True
        self.breaks_after: int | None = None
        self.statuses: list[int] = []
        self.requests: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        site = self.server
        assert isinstance(site, Site)
        wanted = self.headers["Range"]
        site.requests.append((self.path, wanted))
        content = site.files.get(self.path.removeprefix("/"))
        if site.statuses or content is None:
            self.send_error(site.statuses.pop(0) if site.statuses else 404)
            return
        start = 0
        if wanted and site.ranges:
            match = re.fullmatch(r"bytes=(\d+)-", wanted)
            assert match
            start = int(match[1])
        if start and start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        stop = None if site.breaks_after is None else start + site.breaks_after
        self.wfile.write(content[start:stop])

    def log_message(self, format: str, *args: object) -> None:
        del format, args


@contextmanager
def serving() -> Iterator[Site]:
    """A site that answers until the block ends."""
    with Site() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
