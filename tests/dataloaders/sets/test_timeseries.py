import tarfile
from pathlib import Path

import numpy as np
import pytest

from lru.dataloaders import dataset_from_options
from lru.dataloaders.files.series import read_series
from lru.dataloaders.sets.timeseries import TimeSeries, marked

ARCHIVE = Path(__file__).parents[2] / "fixtures" / "timeseries.tar.xz"
HEADER = "@problemName p\n@timeStamps false\n@dimensions 2\n@classLabel true yes no\n@data\n"
ARFF = "@relation r\n@attribute a relational\n@attribute b numeric\n@end a\n"


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    folder = tmp_path_factory.mktemp("timeseries")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


def written(raw_dir, train, test=None, suffix=".ts"):
    folder = raw_dir / "own"
    folder.mkdir()
    for part, text in (("TRAIN", train), ("TEST", test or train)):
        (folder / f"own_{part}{suffix}").write_text(text)
    return folder / f"own_TRAIN{suffix}"


def test_rows_of_unequal_lengths_are_read_and_held_out_by_class(archives, cache_dir):
    prepared = TimeSeries(path="JapaneseVowels").load(archives, cache_dir)
    assert {name: len(split) for name, split in prepared.splits.items()} == {
        "train": 234,
        "val": 36,
        "test": 370,
    }
    card = prepared.card
    assert (card.n_features, card.n_classes, card.max_length) == (12, 9, 29)
    # Of 30 rows a class 15 % are validated on.
    assert card.splits["val"]["class_counts"] == [4] * 9
    assert card.splits["test"]["class_counts"] == [31, 35, 88, 44, 29, 24, 40, 50, 29]
    first = archives / "JapaneseVowels" / "JapaneseVowels_TEST.ts"
    line = first.read_text().partition("@data\n")[2].partition("\n")[0]
    *channels, label = line.split(":")
    expected = np.array([text.split(",") for text in channels], np.float32).T
    steps = int(prepared.test.lengths[0])
    np.testing.assert_array_equal(prepared.test.padded([0], steps)[0], expected)
    assert prepared.test.labels[0] == int(label) - 1


def test_both_forms_of_a_file_have_the_same_rows(archives):
    folder = archives / "BasicMotions"
    forms = [read_series(folder / f"BasicMotions_TRAIN{suffix}") for suffix in (".ts", ".arff")]
    assert [len(rows) for rows in forms] == [40, 40]
    for row, other in zip(*forms, strict=True):
        assert row.values.shape == (100, 6)
        np.testing.assert_array_equal(row.values, other.values)
        assert row.label == other.label


def test_random_splits_have_each_row_once(archives, cache_dir):
    splits = TimeSeries(path="BasicMotions", split="random").load(archives, cache_dir).splits
    assert [len(split) for split in splits.values()] == [56, 12, 12]
    rows = {
        split.padded([i], 100).tobytes() for split in splits.values() for i in range(len(split))
    }
    assert len(rows) == 80


def test_rows_that_stand_in_both_files_are_one_of_the_random_splits(raw_dir, cache_dir):
    rows = [f"{i},1:2,{i}:{'yes' if i % 2 else 'no'}" for i in range(20)]
    written(raw_dir, HEADER + "\n".join(rows), HEADER + "\n".join(rows[:5]))
    splits = TimeSeries(path="own", split="random").load(raw_dir, cache_dir).splits
    assert [len(split) for split in splits.values()] == [14, 3, 3]


def test_missing_values_are_refused_or_marked(raw_dir, cache_dir):
    written(raw_dir, HEADER + "1,?,3:4,5,6:yes\n7,8:NaN,2:no\n1,2,?:3,4,?:yes\n0:1:no\n")
    with pytest.raises(ValueError, match=r"own has missing values; missing=mask reads zeros"):
        TimeSeries(path="own").load(raw_dir, cache_dir)
    test = TimeSeries(path="own", missing="mask").load(raw_dir, cache_dir).test
    # A row that ends in missing values is a shorter one.
    assert test.lengths.tolist() == [3, 2, 2, 1]
    assert test.padded([0], 3)[0].tolist() == [[1, 4, 0, 0], [0, 5, 1, 0], [3, 6, 0, 0]]
    assert test.padded([1], 2)[0].tolist() == [[7, 0, 0, 1], [8, 2, 0, 0]]
    np.testing.assert_array_equal(marked(np.float32([[np.nan, 2]])), [[0, 2, 1, 0]])


@pytest.mark.parametrize(
    ("suffix", "text", "message"),
    [
        (".ts", "@classLabel true a\n1,2:a\n", r"line 2: @data must stand before '1,2:a'"),
        (".ts", "@data\n1:a\n", r"header: @classLabel must be true with the names of the classes"),
        (".ts", "@missing maybe\n@data\n", r"header: @missing must be true or false, got 'maybe'"),
        (".ts", HEADER.replace("2", "two"), r"header: @dimensions must be a number, got 'two'"),
        (".ts", HEADER.replace("Stamps false", "Stamps true"), r"header: series with time stamps"),
        (".ts", HEADER, r"own_TRAIN\.ts has no rows after @data"),
        (".ts", HEADER + "1:2:maybe\n", r"line 6: class 'maybe' is not one of yes, no"),
        (".ts", HEADER + "1:2:3:yes\n", r"line 6: 3 channels, but @dimensions is 2"),
        (".ts", HEADER + "1,2:3:yes\n", r"the same number of steps, got 2, 1"),
        (".ts", HEADER + "1,x:3,4:yes\n", r"line 6: 'x' in channel 0 is not a number"),
        (".ts", HEADER + "?:?:yes\n", r"line 6: the row has no values"),
        (".arff", "@attribute c numeric\n@data\n1,a\n", r"header: no @attribute names the classes"),
        (".arff", ARFF + "@attribute c {a}\n@data\n1,a\n", r"line 7: no quoted channels"),
        (".arff", ARFF + "@attribute c {a}\n@data\n'1',b\n", r"line 7: class 'b' is not one of a"),
        (".arff", ARFF + "@attribute c {a}\n@data\n'1',a\n'1\\n2',a\n", r"line 8: 2 channels, but"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_by_its_line(suffix, text, message, raw_dir, cache_dir):
    written(raw_dir, text, suffix=suffix)
    with pytest.raises(ValueError, match=message):
        TimeSeries(path="own").load(raw_dir, cache_dir)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, ValueError, "path must name a folder in"),
        ({"path": "own"}, FileNotFoundError, "own must have own_TRAIN and own_TEST, both .ts or"),
        ({"path": "own", "held_out": 0.9}, ValueError, "held_out is 0.9, but must be at most 0.5"),
    ],
    ids=["no path", "no files", "share"],
)
def test_what_cannot_be_read_is_refused(options, error, message, raw_dir, cache_dir):
    with pytest.raises(error, match=message):
        TimeSeries(**options).load(raw_dir, cache_dir)


def test_the_published_sets_are_names_of_their_own(raw_dir, cache_dir):
    with pytest.raises(FileNotFoundError, match="EigenWorms_TRAIN and EigenWorms_TEST"):
        dataset_from_options("uea-eigenworms").load(raw_dir, cache_dir)
