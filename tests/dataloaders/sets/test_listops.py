import os
import time
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from lru.dataloaders.base import Dataset
from lru.dataloaders.files.fetch import MIRROR_VARIABLE
from lru.dataloaders.sets import listops
from lru.dataloaders.sets.listops import ListOps, read_tsv
from lru.dataloaders.sets.listops_grammar import VOCABULARY
from lru.dataloaders.store.arrays import Ragged

from ..conftest import real_file
from .test_listops_grammar import evaluated, shape_of

SIZES = {"n_train": 60, "n_val": 10, "n_test": 20}
SHORT = ListOps(**SIZES, min_length=5, max_length=60)

LINES = (
    b"( ( ( [MAX 2 ) 9 ) ] )\t9",
    b"( ( ( [MED 1 ) ( ( ( [SM 7 ) 8 ) ] ) ) ] )\t3",
    b"( ( ( ( [MIN 4 ) 6 ) 5 ) ] )\t4",
)


def words_of(split: Ragged, row: int) -> list[str]:
    return [VOCABULARY[token] for token in split.padded([row], int(split.lengths[row]))[0]]


def write(path: Path, lines: tuple[bytes, ...], end: bytes = b"\r\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(end.join((b"Source\tTarget", *lines)) + end)
    return path


def official(raw_dir: Path, place: str = "listops-1000") -> list[Path]:
    return [
        write(raw_dir / place / f"basic_{split}.tsv", LINES[: index + 1])
        for index, split in enumerate(Dataset.split_names)
    ]


def test_generated_splits_have_their_sizes_right_answers_and_no_sequence_twice(raw_dir, cache_dir):
    prepared = SHORT.load(raw_dir, cache_dir)
    seen = set()
    for split, size in zip(Dataset.split_names, SIZES.values(), strict=True):
        rows = getattr(prepared, split)
        assert len(rows) == size
        for row in range(size):
            words = words_of(rows, row)
            assert evaluated(words) == rows.labels_of([row], 1)[0]
            assert 5 < len(words) < 60
            seen.add(tuple(words))
    assert len(seen) == sum(SIZES.values())
    assert "seed 0" in prepared.card.provenance
    assert "do not compare" in prepared.card.comparable


def test_the_card_describes_it(raw_dir, cache_dir):
    card = SHORT.load(raw_dir, cache_dir).card
    assert (card.kind, card.targets, card.n_classes) == ("tokens", "class", 10)
    assert (card.vocab_size, card.n_features) == (16, None)
    assert card.vocabulary == ["<pad>", "[MIN", "[MAX", "[MED", "[SM", "]", *"0123456789"]
    assert card.max_length == max(figures["max_length"] for figures in card.splits.values()) < 60


def test_val_and_test_do_not_depend_on_the_size_of_train(raw_dir, cache_dir):
    small = SHORT.load(raw_dir, cache_dir)
    large = ListOps(**{**SIZES, "n_train": 3000}, min_length=5, max_length=60).load(
        raw_dir, cache_dir
    )
    assert large.test.values.tobytes() == small.test.values.tobytes()
    assert large.val.values.tobytes() == small.val.values.tobytes()
    assert large.train.values.tobytes().startswith(small.train.values.tobytes())


def test_the_seed_decides(raw_dir, tmp_path):
    def checksum(seed: int, folder: str) -> str:
        dataset = ListOps(**SIZES, seed=seed)
        return dataset.load(raw_dir, tmp_path / folder).card.checksum

    assert checksum(1, "a") == checksum(1, "b")
    assert checksum(1, "a") != checksum(2, "a")


def test_more_sequences_than_exist_are_an_error_that_says_so(raw_dir, cache_dir):
    with pytest.raises(ValueError, match="too few different sequences for n_train=5000"):
        ListOps(n_train=5000, max_length=5, min_length=1, max_depth=2).prepare(raw_dir, cache_dir)
    assert list(cache_dir.iterdir()) == []


@pytest.mark.parametrize("place", listops.PLACES)
def test_official_files_are_found_and_read(raw_dir, cache_dir, place):
    official(raw_dir, place)
    prepared = ListOps().load(raw_dir, cache_dir)
    assert [len(split) for split in (prepared.train, prepared.val, prepared.test)] == [1, 2, 3]
    assert " ".join(words_of(prepared.test, 1)) == "[MED 1 [SM 7 8 ] ]"
    assert prepared.test.labels.tolist() == [9, 3, 4]
    assert "Read from listops-1000" in prepared.card.provenance
    assert "1 / 2 / 3 examples instead of the published 96,000" in prepared.card.comparable


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("converted", [False, True])
def test_files_without_parentheses_read_the_same(tmp_path, end, converted):
    lines = tuple(line.translate(None, b"()") for line in LINES) if converted else LINES
    (chunk,) = read_tsv(write(tmp_path / "a.tsv", lines, end))
    assert chunk.lengths.tolist() == [4, 7, 5]
    assert chunk.values.tolist() == [9, 3, 4]
    text = " ".join(VOCABULARY[token] for token in chunk.tokens)
    assert text == "[MAX 2 9 ] [MED 1 [SM 7 8 ] ] [MIN 4 6 5 ]"


def test_long_files_come_in_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(listops, "LINES_AT_ONCE", 2)
    chunks = list(read_tsv(write(tmp_path / "a.tsv", LINES)))
    assert [chunk.lengths.tolist() for chunk in chunks] == [[4, 7], [5]]


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        (b"( [MAX 2 ] )", "1 columns"),
        (b"( [MAX 2 ] )\t2\t3", "3 columns"),
        (b"", "1 columns"),
        (b"( ( [MAX 2 ) 12 ] )\t2", "unknown token '12'"),
        (b"( ( [AVG 2 ) 1 ] )\t2", r"unknown token '\[AVG'"),
        (b"[MAX 2 \xff ]\t2", "unknown token"),
        (b"( [MAX 2 ] )\t12", "target is '12', not 0 to 9"),
        (b"( [MAX 2 ] )\t", "target is '', not 0 to 9"),
        (b"\t2", "source is empty"),
        (b"( ( ) )\t2", "source is empty"),
        (b"( [MAX 2 ( [MIN 1 3 ] )\t2", "2 operators, but 1 closing"),
        (b"] 3 [MAX\t3", "not one expression"),
        (b"1 2 3\t3", "not one expression"),
        (b"[MAX 1 2 ] [MIN 3 4 ]\t3", "not one expression"),
        (b"[MAX 1 [MIN ] ]\t1", "an operator has no arguments"),
    ],
)
def test_a_corrupt_line_is_named_and_nothing_is_cached(raw_dir, cache_dir, line, wrong):
    path = official(raw_dir)[2]
    write(path, (*LINES[:2], line))
    with pytest.raises(ValueError, match=rf"basic_test\.tsv, line 4: .*{wrong}"):
        ListOps().prepare(raw_dir, cache_dir)
    assert list(cache_dir.iterdir()) == []
    write(path, LINES)
    assert len(ListOps().load(raw_dir, cache_dir).test) == 3


@pytest.mark.parametrize("content", [b"", b"Source\tTarget\r\n"])
def test_a_file_without_examples_is_an_error(tmp_path, content):
    path = tmp_path / "basic_val.tsv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"basic_val\.tsv has no examples"):
        list(read_tsv(path))


def test_some_of_the_files_are_not_taken_for_none(raw_dir, cache_dir):
    official(raw_dir)[1].unlink()
    with pytest.raises(FileNotFoundError, match=r"basic_val\.tsv missing"):
        ListOps().prepare(raw_dir, cache_dir)


def test_official_means_official(raw_dir, cache_dir, monkeypatch):
    monkeypatch.setenv(MIRROR_VARIABLE, "http://127.0.0.1:9")
    with pytest.raises(FileNotFoundError, match=r"there is none of .*listops-1000.*put it at"):
        ListOps(source="official").prepare(raw_dir, cache_dir)
    with pytest.raises(ValueError, match="n_val, seed cannot be chosen"):
        ListOps(source="official", n_val=3, seed=1)
    official(raw_dir)
    assert len(ListOps(source="official").load(raw_dir, cache_dir).test) == 3


def test_other_options_generate_and_say_so(raw_dir, cache_dir):
    official(raw_dir)
    card = SHORT.load(raw_dir, cache_dir).card
    assert card.splits["train"]["examples"] == 60
    assert "because of n_train=60, n_val=10, n_test=20" in card.provenance


def test_source_generated_ignores_the_files(raw_dir):
    official(raw_dir)
    assert ListOps(source="generated").raw_files(raw_dir) == ()


def test_files_that_come_or_change_after_caching_are_read(raw_dir, cache_dir, monkeypatch):
    def generated(self, folder: Path) -> None:
        for split in Dataset.split_names:
            self._convert(write(raw_dir / "elsewhere.tsv", LINES[:1]), folder, split)

    monkeypatch.setattr(ListOps, "_generate", generated)
    assert len(ListOps().load(raw_dir, cache_dir).test) == 1
    path = official(raw_dir)[2]
    assert len(ListOps().load(raw_dir, cache_dir).test) == 3
    write(path, LINES[:2])
    stamp = time.time() + 5
    os.utime(path, (stamp, stamp))
    assert len(ListOps().load(raw_dir, cache_dir).test) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_train": 0}, "n_train is 0, but must be at least 1"),
        ({"max_args": 1}, "max_args is 1, but must be at least 2"),
        ({"min_length": 0}, "min_length is 0, but must be at least 1"),
        ({"min_length": 100, "max_length": 101}, "max_length is 101, but must be at least 102"),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        ListOps(**options)


def test_real_files_are_answered_right(real_data, cache_dir):
    real_file(real_data / "listops-1000" / "basic_test.tsv")
    prepared = ListOps(source="official").load(real_data, cache_dir)
    for row in range(min(len(prepared.test), 200)):
        assert evaluated(words_of(prepared.test, row)) == prepared.test.labels[row]


def test_generated_sequences_are_distributed_as_real_ones(real_data, raw_dir, cache_dir):
    real_file(real_data / "listops-1000" / "basic_train.tsv")
    rows = 600
    real = ListOps(source="official").load(real_data, cache_dir).train
    drawn = ListOps(n_train=rows, n_val=1, n_test=1).load(raw_dir, cache_dir).train
    assert len(real) >= rows
    assert stats.ks_2samp(real.lengths[:rows], drawn.lengths).pvalue > 1e-3

    def figures(split: Ragged) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Per row: operators at each depth, operators with each number of arguments, tokens."""
        depths, arguments, tokens = [], [], []
        for row in range(rows):
            words = words_of(split, row)
            of_depth, of_arguments = shape_of(words)
            depths.append(np.bincount(of_depth, minlength=11))
            arguments.append(np.bincount(of_arguments, minlength=11))
            tokens.append([words.count(token) for token in VOCABULARY])
        return np.array(depths), np.array(arguments), np.array(tokens)

    for of_real, of_drawn in zip(figures(real), figures(drawn), strict=True):
        assert of_real.shape == of_drawn.shape
        spread = np.sqrt((of_real.var(0) + of_drawn.var(0)) / rows)
        assert (np.abs(of_real.mean(0) - of_drawn.mean(0)) <= 4 * spread).all()
    targets = np.stack([np.bincount(split.labels[:rows], minlength=10) for split in (real, drawn)])
    assert stats.chi2_contingency(targets).pvalue > 1e-3
