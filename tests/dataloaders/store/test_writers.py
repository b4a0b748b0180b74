import numpy as np
import pytest

from lru.dataloaders.store import cache
from lru.dataloaders.store.arrays import Pairs
from lru.dataloaders.store.cache import CacheError
from lru.dataloaders.store.writers import ArrayWriter, DenseWriter, PairWriter, RaggedWriter


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


def test_ragged_chunks_of_values_join(tmp_path):
    sound = np.arange(8, dtype=np.float32).reshape(4, 2)
    with RaggedWriter(tmp_path, "train", np.float32, n_features=2) as writer:
        writer.append(sound[:1], np.array([1]), np.array([7]))
        writer.append(sound[1:], np.array([0, 3]), np.array([8, 9]))
    split = cache.read_split(tmp_path, "train")
    assert split.lengths.tolist() == [1, 0, 3]
    np.testing.assert_array_equal(split.padded([2], 3)[0], sound[1:])


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


def test_dense_chunks_join(tmp_path):
    rows = np.arange(12, dtype=np.uint8).reshape(3, 4, 1)
    with DenseWriter(tmp_path, "test", np.uint8, (4, 1)) as writer:
        writer.append(rows[:1], np.array([2]))
        writer.append(rows[1:], np.array([0, 1]))
    split = cache.read_split(tmp_path, "test")
    np.testing.assert_array_equal(split.padded([0, 1, 2], 4), rows)
    assert split.labels.tolist() == [2, 0, 1]
    assert split.labels.dtype == np.int32


def test_targets_that_are_values_are_written_for_rows_and_for_steps(tmp_path):
    rows, labels = np.ones((2, 3, 1), np.float32), np.arange(12, dtype=np.float32)
    with DenseWriter(tmp_path, "train", np.float32, (3, 1), per_step=True, n_targets=2) as dense:
        dense.append(rows, labels.reshape(2, 3, 2))
    with RaggedWriter(tmp_path, "val", np.uint8, n_targets=6) as ragged:
        ragged.append(np.array([1, 2, 3], np.uint8), np.array([1, 2]), labels.reshape(2, 6))
    for split, shape in (("train", (2, 3, 2)), ("val", (2, 6))):
        read = cache.read_split(tmp_path, split).labels
        assert read.dtype == np.float32
        np.testing.assert_array_equal(read, labels.reshape(shape))
