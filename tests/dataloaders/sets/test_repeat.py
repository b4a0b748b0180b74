"""Sequences to repeat: distinct, by the rules of their splits, the same everywhere."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from lru.dataloaders import dataset_from_options

FIXTURE = Path(__file__).parents[2] / "fixtures" / "repeat_reference.npz"
FIRST = [(5, 7, 5, 1, 9), (2, 9, 9, 10, 5), (5, 1, 4, 5)]
SMALL = {"n_train": 4000, "n_val": 300, "n_more": 100, "n_symbols": 10, "max_length": 5}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("repeat")
    return dataset_from_options("repeat", SMALL).load(folder, folder)


def rows(split):
    """The rows of a split, as tuples."""
    offsets, values = split.offsets.tolist(), split.values.tolist()
    return [tuple(values[a:b]) for a, b in pairwise(offsets)]


def test_splits_follow_their_rules(small):
    lengths = {
        "train": {2, 3, 4, 5},
        "val": {2, 3, 4, 5},
        "longer_1": {6},
        "longer_2": {7},
        "longer_1_norepeat": {6},
        "fixed_train": {5},
        "fixed": {5},
        "fixed_norepeat": {5},
        "rep_3": {3, 4, 5},
    }
    sizes = {"train": 4000, "fixed_train": 4000, "val": 300, "fixed": 300, "fixed_norepeat": 300}
    assert small.splits.keys() == lengths.keys()
    found = {name: rows(split) for name, split in small.splits.items()}
    for name, drawn in found.items():
        assert len({*drawn}) == len(drawn) == sizes.get(name, 100), name
        assert {*map(len, drawn)} == lengths[name]
        assert {*np.concatenate(drawn)} == {*range(1, 11)}
        distinct = [len({*row}) - len(row) for row in drawn]
        if "norepeat" in name:
            assert {*distinct} == {0}
    assert all(sorted(map(row.count, {*row}))[-1] == 3 for row in found["rep_3"])
    assert all(len({*row}) == len(row) - 2 for row in found["rep_3"])
    evaluated = [row for name, drawn in found.items() if "train" not in name for row in drawn]
    assert not {*evaluated} & {*found["train"], *found["fixed_train"]}
    # A fifth of the hundred sequences of length 2; those of length 3 are not that many.
    assert sum(len(row) == 2 for row in found["val"]) == 20


def test_published_sets_have_the_same_shares_of_lengths():
    recorded = np.load(FIXTURE)
    facts = json.loads(str(recorded["meta_json"]))["cases"]
    draws = dataset_from_options("repeat").draws()
    for name, published in (("val", "valid"), ("fixed", "intervention"), ("longer_1", "longer_1")):
        draw, theirs = draws[name], facts[f"data/{published}"]
        assert [draw.shortest, draw.longest] == theirs["lengths"]
        assert draw.capped == (theirs["cap"] is not None)
    # What is left of the 900 sequences of length 2 is all in train, there as here.
    left = 900 - draws["val"].count(2, 30)
    assert left == recorded["data/train_full/hist"][2]


def test_content_depends_on_the_seed_alone(small, tmp_path):
    again = dataset_from_options("repeat", SMALL).load(tmp_path, tmp_path)
    assert again.card.checksum == small.card.checksum
    other = dataset_from_options("repeat", {**SMALL, "seed": 1}).load(tmp_path, tmp_path)
    assert other.card.checksum != small.card.checksum


def test_first_rows_are_known(small):
    # Those of a stream of the seed, whatever the machine and the version of NumPy.
    assert rows(small.splits["val"])[:3] == FIRST


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"n_train": 120_000},
            "n_train is 120000, but train has .* of 2 to 5 of 10 symbols",
        ),
        ({"n_val": 30_000}, "n_val is 30000, but val has at most 22220 different"),
        ({"n_symbols": 300}, "n_symbols is 300, but at most 254"),
        ({"min_length": 0}, "min_length is 0, but must be at least 1"),
        ({"min_length": 6}, "max_length is 5, but must be at least 6"),
        ({"n_symbols": 1}, "n_symbols is 1, but must be at least 2"),
    ],
)
def test_sequences_that_cannot_be_distinct_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        dataset_from_options("repeat", {**SMALL, **options})


def test_splits_that_an_alphabet_has_no_sequences_for_are_left_out(tmp_path):
    options = {"n_train": 50, "n_val": 5, "n_more": 5, "n_symbols": 4, "max_length": 4}
    found = dataset_from_options("repeat", options).load(tmp_path, tmp_path)
    assert "longer_1_norepeat" not in found.splits
    assert {"fixed_norepeat", "rep_3"} <= found.splits.keys()
