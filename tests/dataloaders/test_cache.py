import os
import time

import numpy as np
import pytest

from lru.dataloaders import cache
from lru.dataloaders.arrays import Pairs
from lru.dataloaders.cache import ArrayWriter, CacheError, PairWriter, RaggedWriter


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32, np.int64])
@pytest.mark.parametrize("row_shape", [(), (3,), (2, 2)])
def test_an_array_written_in_pieces_reads_as_a_whole(tmp_path, dtype, row_shape):
    whole = np.arange(7 * int(np.prod(row_shape))).reshape(7, *row_shape).astype(dtype)
    with ArrayWriter(tmp_path / "a.npy", dtype, row_shape) as writer:
        for piece in (whole[:2], whole[2:2], whole[2:]):
            writer.append(piece)
    for mode in (None, "r"):
        read = np.load(tmp_path / "a.npy", mmap_mode=mode, allow_pickle=False)
        assert read.dtype == dtype
        np.testing.assert_array_equal(read, whole)


def test_rows_of_another_shape_are_refused(tmp_path):
    with (
        ArrayWriter(tmp_path / "a.npy", np.uint8, (3,)) as writer,
        pytest.raises(ValueError, match=r"rows have shape \(4,\), but \(3,\) is stored"),
    ):
        writer.append(np.zeros((2, 4), np.uint8))


def test_an_array_that_was_not_closed_cannot_be_read(tmp_path):
    with ArrayWriter(tmp_path / "a.npy", np.uint8) as writer:
        writer.append(np.ones(100_000, np.uint8))
        with pytest.raises(ValueError, match="allow_pickle"):
            np.load(tmp_path / "a.npy", allow_pickle=False)
    assert np.load(tmp_path / "a.npy").sum() == 100_000


def test_ragged_chunks_join(tmp_path):
    with RaggedWriter(tmp_path, "train", np.uint8) as writer:
        writer.append(np.array([1, 2, 3], np.uint8), np.array([1, 2]), np.array([7, 8]))
        writer.append(np.array([4], np.uint8), np.array([1]), np.array([9]))
    split = cache.read_split(tmp_path, "train")
    assert split.padded([0, 1, 2], 2).tolist() == [[1, 0], [2, 3], [4, 0]]
    assert split.labels.tolist() == [7, 8, 9]
    assert split.labels.dtype == np.int32
    assert not split.values.flags.writeable


def write_pairs(folder, first: list[int]) -> None:
    with PairWriter(folder, "val", np.uint8) as writer:
        writer.append(
            (np.array(first, np.uint8), np.array([1, 2])),
            (np.array([4], np.uint8), np.array([1, 0])),
            np.array([1, 0]),
        )
        writer.append(
            (np.array([9], np.uint8), np.array([1])),
            (np.array([8, 7], np.uint8), np.array([2])),
            np.array([1]),
        )


def test_chunks_of_pairs_join_and_have_a_checksum_over_both_documents(tmp_path):
    write_pairs(tmp_path, [1, 2, 3])
    split = cache.read_split(tmp_path, "val")
    assert isinstance(split, Pairs)
    assert split.padded([0, 1, 2], 2).tolist() == [
        [[1, 0], [4, 0]],
        [[2, 3], [0, 0]],
        [[9, 0], [8, 7]],
    ]
    assert split.labels.tolist() == [1, 0, 1]
    assert cache.size_in_bytes({"val": split}) == 4 + 3 + 2 * 4 * 8 + 3 * 4
    before = cache.checksum({"val": split})
    write_pairs(tmp_path, [1, 2, 4])
    assert cache.checksum({"val": cache.read_split(tmp_path, "val")}) != before
    (tmp_path / "val.second.offsets.npy").unlink()
    with pytest.raises(CacheError, match="split 'val' cannot be read"):
        cache.read_split(tmp_path, "val")


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
