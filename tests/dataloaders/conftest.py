"""Where the real data sets lie, for the tests that read them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lru.dataloaders.files import fetch

from .site import Site, serving


@pytest.fixture
def raw_dir(tmp_path: Path) -> Path:
    """An empty raw folder."""
    folder = tmp_path / "raw_datasets"
    folder.mkdir()
    return folder


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    """A cache folder that does not exist yet."""
    return tmp_path / "cache_dir"


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A web server on this machine; transfers that break off go on at once."""
    monkeypatch.delenv(fetch.MIRROR_VARIABLE, raising=False)
    monkeypatch.setattr(fetch, "BACK_OFF_SECONDS", (0.0,) * len(fetch.BACK_OFF_SECONDS))
    with serving() as server:
        yield server


def real_file(path: Path) -> Path:
    """`path`, or a skip that says that it is missing."""
    if not path.exists():
        pytest.skip(f"real data needed: {path} is missing")
    return path
