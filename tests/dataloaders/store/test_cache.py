import os
import threading
import time
from contextlib import suppress

import numpy as np
import pytest

from lru.dataloaders.store import cache
from lru.dataloaders.store.cache import CacheError


def test_a_missing_split_is_damage(tmp_path):
    with pytest.raises(CacheError, match=f"split 'val' cannot be read.*delete {tmp_path}"):
        cache.read_split(tmp_path, "val")


def test_a_checksum_sees_content_type_and_shape():
    inputs, labels = np.zeros((2, 4, 1), np.uint8), np.zeros(2, np.int32)
    base = cache.checksum({"train": cache.Dense(inputs, labels)})
    other = inputs.copy()
    other[1, 2, 0] = 1
    assert base == cache.checksum({"train": cache.Dense(inputs.copy(), labels)})
    assert base != cache.checksum({"train": cache.Dense(other, labels)})
    assert base != cache.checksum({"train": cache.Dense(inputs.reshape(2, 2, 2), labels)})
    assert base != cache.checksum({"test": cache.Dense(inputs, labels)})


def test_staging_leaves_nothing_after_an_error(tmp_path):
    def build() -> None:
        with cache.staging(tmp_path / "cache" / "set") as partial:
            (partial / "file").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build()
    assert list((tmp_path / "cache").iterdir()) == []


def test_publishing_replaces_what_is_stale_and_keeps_what_is_current(tmp_path):
    folder = tmp_path / "set"

    def put(text: str, current: bool) -> str:
        with cache.staging(folder) as partial:
            (partial / "file").write_text(text)
            cache.publish(partial, folder, lambda: current)
        return (folder / "file").read_text()

    assert put("one", False) == "one"
    assert put("two", True) == "one"
    assert put("three", False) == "three"
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize("locks", [True, False])
def test_two_at_once_replace_what_is_stale(tmp_path, monkeypatch, locks):
    if not locks:
        monkeypatch.setattr(cache, "fcntl", None)
    folder, errors = tmp_path / "set", []
    folder.mkdir()
    (folder / "file").write_text("old")
    both = threading.Barrier(2)

    def is_current() -> bool:
        current = (folder / "file").read_text() == "new"
        # Without locks, both have seen the old one before either goes on.
        with suppress(threading.BrokenBarrierError):
            both.wait(0.2)
        return current

    def put() -> None:
        try:
            with cache.staging(folder) as partial:
                (partial / "file").write_text("new")
                cache.publish(partial, folder, is_current)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=put) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert (folder / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_leftovers_of_killed_processes_are_swept_when_old(tmp_path):
    old, young, other = (
        tmp_path / f".{name}.partial" for name in ("set.1", "set.2", "set-0123456789.3")
    )
    for partial in (old, young, other):
        partial.mkdir()
        (partial / "train.values.npy").write_bytes(b"half")
    past = time.time() - cache.ABANDONED_AFTER - 60
    for partial in (old, other):
        os.utime(partial / "train.values.npy", (past, past))
        os.utime(partial, (past, past))
    with cache.staging(tmp_path / "set"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {young.name, other.name}
