from pathlib import Path

import pytest

from lru.dataloaders.sets.imdb import OPINIONS, PARTS, PLACES, Imdb, ImdbWords
from lru.dataloaders.store.arrays import Split
from lru.dataloaders.store.card import Card

from ..conftest import real_file

REVIEWS = {
    "neg": {"0_3.txt": "Bad. Bad!", "10_1.txt": "bad bad<br />bad"},
    "pos": {"0_9.txt": "good", "2_10.txt": "Très good"},
}
COMMON = {"n_val": 1, "min_frequency": 1}


def write(raw_dir: Path, place: str = PLACES[0]) -> Path:
    for part in PARTS:
        for opinion in OPINIONS:
            folder = raw_dir / place / part / opinion
            folder.mkdir(parents=True)
            for name, text in REVIEWS[opinion].items():
                (folder / name).write_text(text)
    return raw_dir / place


def text_of(split: Split, row: int, card: Card, separator: str) -> str:
    tokens = split.padded([row], int(split.lengths[row]))[0]
    return separator.join(card.vocabulary[token] for token in tokens)


@pytest.mark.parametrize("place", PLACES)
def test_reviews_are_found_and_read_by_label_and_name(raw_dir, cache_dir, place):
    write(raw_dir, place)
    prepared = Imdb(**COMMON).load(raw_dir, cache_dir)
    texts = [text_of(prepared.test, row, prepared.card, "") for row in range(4)]
    assert texts == [
        "Bad. Bad!<eos>",
        "bad bad<br />bad<eos>",
        "good<eos>",
        "Très good<eos>",
    ]
    assert prepared.test.labels.tolist() == [0, 0, 1, 1]
    assert (len(prepared.train), len(prepared.val)) == (3, 1)
    assert "not the published sizes" in prepared.card.comparable


def test_words(raw_dir, cache_dir):
    write(raw_dir)
    prepared = ImdbWords(**COMMON, max_length=5).load(raw_dir, cache_dir)
    assert text_of(prepared.test, 0, prepared.card, " ") == "bad . bad ! <eos>"
    assert text_of(prepared.test, 1, prepared.card, " ") == "bad bad bad <eos>"
    assert prepared.card.max_length == 5
    rare = ImdbWords(n_val=1, min_frequency=3).load(raw_dir, cache_dir).card
    assert rare.vocabulary == ["<pad>", "<unk>", "<eos>", "bad"]


def test_the_vocabulary_is_that_of_the_training_part(raw_dir, cache_dir):
    (write(raw_dir) / "test" / "neg" / "0_3.txt").write_text("Zzz")
    prepared = Imdb(**COMMON).load(raw_dir, cache_dir)
    assert text_of(prepared.test, 0, prepared.card, "") == "<unk>" * 3 + "<eos>"
    assert prepared.card.vocab_size == len(prepared.card.vocabulary) < 30


def test_the_lra_protocol_keeps_all_of_train(raw_dir, cache_dir):
    write(raw_dir)
    prepared = Imdb(protocol="lra", min_frequency=1).load(raw_dir, cache_dir)
    assert [len(split) for split in (prepared.train, prepared.val, prepared.test)] == [4, 4, 4]
    assert prepared.val.values.tobytes() == prepared.test.values.tobytes()


def test_a_review_that_comes_later_is_read(raw_dir, cache_dir):
    folder = write(raw_dir)
    Imdb(**COMMON).prepare(raw_dir, cache_dir)
    (folder / "test" / "pos" / "3_8.txt").write_text("fine")
    assert len(Imdb(**COMMON).load(raw_dir, cache_dir).test) == 5


def test_damage_is_named_and_nothing_is_cached(raw_dir, cache_dir):
    folder = write(raw_dir) / "train" / "neg"
    (folder / "0_3.txt").write_bytes(b"caf\xe9")
    with pytest.raises(ValueError, match=r"0_3\.txt is not UTF-8"):
        Imdb(**COMMON).prepare(raw_dir, cache_dir)
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"train/neg has no reviews"):
        Imdb(**COMMON).prepare(raw_dir, cache_dir)
    assert list(cache_dir.iterdir()) == []


def test_options_out_of_range_are_named():
    with pytest.raises(ValueError, match="imdb-classification: max_length is 0, but must be at"):
        Imdb(max_length=0)
    with pytest.raises(ValueError, match="n_val is 4, but must be less than the 4 examples"):
        Imdb(n_val=4).parts(4, 4)


def test_the_real_reviews(real_data, cache_dir):
    real_file(real_data / PLACES[0])
    prepared = Imdb().load(real_data, cache_dir)
    card = prepared.card
    assert [figures["examples"] for figures in card.splits.values()] == [22_500, 2_500, 25_000]
    assert card.splits["test"]["class_counts"] == [12_500, 12_500]
    # The published 135 are these 131 characters, the three specials, and a begin that is not used.
    assert card.vocab_size == 134
    assert card.max_length == 4_096
    start = text_of(prepared.test, 0, card, "")[:40]
    assert start == "Once again Mr. Costner has dragged out a"
