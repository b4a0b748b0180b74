"""Whether raw files are those that a cached data set was made from, by names, sizes and times."""

import os

import pytest

from lru.dataloaders.files.fingerprints import fingerprints
from lru.dataloaders.sets.imdb import Imdb

from ..sets import test_imdb


def test_files_are_known_by_size_and_time(tmp_path):
    path = tmp_path / "deep" / "file"
    path.parent.mkdir()
    path.write_bytes(b"abc")
    os.utime(path, ns=(1, 7))
    assert fingerprints((path,), tmp_path) == {"deep/file": [3, 7]}


@pytest.mark.parametrize("change", ["size", "time", "name", "more", "fewer"])
def test_a_folder_is_known_by_all_its_files(tmp_path, change):
    one, other = tmp_path / "set" / "0" / "a.png", tmp_path / "set" / "1" / "b.png"
    for path in (one, other):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"picture")
    folder = tmp_path / "set"
    before = fingerprints((folder,), tmp_path)
    assert fingerprints((folder,), tmp_path) == before
    assert before["set"][0] == 2 * len(b"picture")
    time = other.stat().st_mtime_ns
    if change == "size":
        other.write_bytes(b"a picture")
        os.utime(other, ns=(time, time))
    elif change == "time":
        os.utime(other, ns=(time, time + 1))
    elif change == "name":
        other.rename(other.with_name("c.png"))
    elif change == "more":
        other.with_name("c.png").write_bytes(b"")
    else:
        other.unlink()
    assert fingerprints((folder,), tmp_path) != before


def test_a_changed_review_is_read_again(raw_dir, cache_dir):
    test_imdb.write(raw_dir)
    before = Imdb(n_val=1).load(raw_dir, cache_dir).card
    path = next((raw_dir / "aclImdb" / "test" / "pos").glob("*.txt"))
    path.write_text("another text")
    after = Imdb(n_val=1).load(raw_dir, cache_dir).card
    assert after.checksum != before.checksum
