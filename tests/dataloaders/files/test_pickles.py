import collections
import os
import pickle

import numpy as np
import pytest

from lru.dataloaders.files.pickles import load_plain


class Attack:
    """Runs a command when it is unpickled."""

    def __init__(self, path: str):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", [2, 4])
def test_containers_numbers_bytes_and_arrays_come_back(tmp_path, protocol):
    images = np.arange(12, dtype=np.uint8).reshape(2, 6)
    data = {"labels": [1, 2.5, None, True], "data": images, "names": ("a", "b")}
    (tmp_path / "batch").write_bytes(pickle.dumps(data, protocol=protocol))
    loaded = load_plain(tmp_path / "batch")
    np.testing.assert_array_equal(loaded["data"], images)
    assert loaded["labels"] == data["labels"]
    assert loaded["names"] == data["names"]


def test_text_of_python_2_comes_as_bytes(tmp_path):
    (tmp_path / "batch").write_bytes(b"\x80\x02}U\x04nameU\x03abcs.")
    assert load_plain(tmp_path / "batch") == {b"name": b"abc"}


def test_nothing_runs(tmp_path):
    trace = tmp_path / "trace"
    (tmp_path / "batch").write_bytes(pickle.dumps({"data": Attack(str(trace))}))
    with pytest.raises(ValueError, match=r"batch is no pickle of plain data \(it asks for posix"):
        load_plain(tmp_path / "batch")
    assert not trace.exists()


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(collections.OrderedDict(a=1)),
        pickle.dumps(np.load),
        pickle.dumps(eval),
        pickle.dumps(np.ones(3))[:-9],
        b"",
        b"no pickle",
    ],
)
def test_anything_else_is_refused(tmp_path, content):
    (tmp_path / "batch").write_bytes(content)
    with pytest.raises(ValueError, match="is no pickle of plain data"):
        load_plain(tmp_path / "batch")
