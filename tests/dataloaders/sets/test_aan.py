from pathlib import Path

import numpy as np
import pytest

from lru.dataloaders.sets import aan
from lru.dataloaders.sets.aan import FILES, PLACES, Aan
from lru.dataloaders.store.arrays import Pairs

from ..conftest import real_file

LINES = (
    b"1.0\tP99-1\tJ97-4\tabc\tab \xc3\xa9",
    b'0\tP99-2\tJ97-5\t"b" b\t',
    b"0.0\tP99-3\tJ97-6\taaaaaaaaaa\tb",
)


def write(raw_dir: Path, lines: tuple[bytes, ...] = LINES, place: str = PLACES[0]) -> Path:
    folder = raw_dir / place
    folder.mkdir(parents=True, exist_ok=True)
    for part in FILES.values():
        (folder / f"new_aan_pairs.{part}.tsv").write_bytes(b"\r\n".join((*lines, b"")))
    return folder


def texts(split: Pairs, vocabulary: list[str]) -> list[list[str]]:
    padded = split.padded(range(len(split)), int(split.lengths.max()))
    return [
        ["".join(vocabulary[token] for token in text if token) for text in row] for row in padded
    ]


@pytest.mark.parametrize("chunk", [1, 2, 256])
@pytest.mark.parametrize("place", PLACES)
def test_pairs_are_found_and_read(raw_dir, cache_dir, monkeypatch, place, chunk):
    monkeypatch.setattr(aan, "LINES_AT_ONCE", chunk)
    write(raw_dir, place=place)
    prepared = Aan(max_length=8).load(raw_dir, cache_dir)
    for split in (prepared.train, prepared.val, prepared.test):
        assert isinstance(split, Pairs)
        assert texts(split, prepared.card.vocabulary) == [
            ["abc<eos>", "ab é<eos>"],
            ['"b" b<eos>', "<eos>"],
            ["aaaaaaa<eos>", "b<eos>"],
        ]
        assert split.labels.tolist() == [1, 0, 0]
        assert split.lengths_of([0, 1, 2]).tolist() == [[4, 5], [6, 1], [8, 2]]


def test_the_card_describes_it(raw_dir, cache_dir):
    write(raw_dir)
    card = Aan(min_frequency=3).load(raw_dir, cache_dir).card
    assert (card.kind, card.n_classes, card.targets, card.n_features) == (
        "token_pairs", 2, "class", None,
    )  # fmt: skip
    assert card.vocabulary == ["<pad>", "<unk>", "<eos>", "a", "b"]
    assert card.splits["train"] == {
        "examples": 3,
        "min_length": 5,
        "mean_length": pytest.approx(22 / 3),
        "max_length": 11,
        "class_counts": [2, 1],
    }
    assert "hold 3 / 3 / 3 pairs instead of the published 147,086" in card.comparable


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        (b"1\ta\tb\tc", "4 columns"),
        (b"1\ta\tb\tc\td\te", "6 columns"),
        (b"", "1 columns"),
        (b"2\ta\tb\tc\td", "the label is '2', not 0 or 1"),
        (b"label\tid1\tid2\ttext1\ttext2", "the label is 'label'"),
        (b"1\ta\tb\tc\xe9\td", "a text is not UTF-8"),
    ],
)
def test_a_corrupt_line_is_named_and_nothing_is_cached(raw_dir, cache_dir, line, wrong):
    write(raw_dir, (*LINES, line))
    with pytest.raises(ValueError, match=rf"new_aan_pairs\.train\.tsv, line 4: {wrong}"):
        Aan().prepare(raw_dir, cache_dir)
    assert list(cache_dir.iterdir()) == []


def test_an_empty_file_is_an_error(raw_dir, cache_dir):
    (write(raw_dir) / "new_aan_pairs.eval.tsv").write_bytes(b"")
    with pytest.raises(ValueError, match=r"new_aan_pairs\.eval\.tsv has no pairs"):
        Aan().prepare(raw_dir, cache_dir)


def test_real_pairs(real_data, cache_dir):
    real_file(real_data / PLACES[0])
    prepared = Aan().load(real_data, cache_dir)
    assert isinstance(prepared.train, Pairs)
    assert len(prepared.train) == 1_000
    assert prepared.card.max_length == 4_000
    assert prepared.card.splits["test"]["class_counts"] == [100, 100]
    first = texts(prepared.val, prepared.card.vocabulary)[0][0]
    assert first.startswith("Estimators For Stochastic Unification-Based Grammars")
    assert np.all(prepared.val.lengths_of(range(200)) >= 1)
