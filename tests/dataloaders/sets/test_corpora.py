from pathlib import Path

import numpy as np
import pytest

from lru.dataloaders import DATASETS, Prepared, Ragged
from lru.dataloaders.__main__ import main
from lru.dataloaders.base import Dataset
from lru.dataloaders.sets.corpora import Characters, Words, boundary
from lru.dataloaders.sets.ptb import PennTreebank, PennTreebankCharacters
from lru.dataloaders.sets.shakespeare import Shakespeare
from lru.dataloaders.sets.wikipedia import Enwik8, Text8
from lru.dataloaders.sets.wikitext import WikiText2

from ..conftest import real_file

LINES = {
    "train": " the cat <unk> the \n\n a cat sat \n",
    "val": " the dog \n",
    "test": " a cat \n the end \n",
}
PLAYS = "to be\nor not to be"


def write_words(raw_dir: Path, kind: type[Words], place: str | None = None) -> Path:
    folder = raw_dir / (place or (kind.sources[-1].unpacked or "ptb"))
    if kind is PennTreebankCharacters and place is None:
        folder = raw_dir / kind.places[0]
    folder.mkdir(parents=True)
    for split, text in LINES.items():
        (folder / kind.file_names[split]).write_text(text)
    return folder


def write_text(raw_dir: Path, kind: type[Characters], text: str = PLAYS) -> Path:
    path = raw_dir / kind.candidates[kind is not Shakespeare]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def text_of(prepared: Prepared, split: str) -> str:
    part = getattr(prepared, split)
    assert isinstance(part, Ragged)
    separator = DATASETS[prepared.card.name].separator
    return separator.join(prepared.card.vocabulary[token] for token in part.values)


@pytest.mark.parametrize(
    ("corpus", "text", "tokens"),
    [
        (PennTreebank(), "a cat\n\nthe end", ["a", "cat", "<eos>", "<eos>", "the", "end"]),
        (PennTreebankCharacters(), "a b\nc", ["a", "_", "b", "<eos>", "c"]),
        (PennTreebankCharacters(), "<unk> a<", ["<unk>", "_", "a", "<"]),
        (Shakespeare(), "a b\n c", list("a b\n c")),
        (Enwik8(), "a é\n", ["a", " ", "<0xc3>", "<0xa9>", "\n"]),
    ],
)
def test_texts_are_cut_into_tokens_and_put_together(corpus, text, tokens):
    assert corpus.split(text) == tokens
    assert corpus.join(tokens) == text


def test_half_a_character_is_marked():
    assert Enwik8().join(["a", "<0xc3>", "b"]) == "a\ufffdb"


@pytest.mark.parametrize("place", PennTreebank.places)
def test_words_of_all_lines_follow_one_another(raw_dir, cache_dir, place):
    write_words(raw_dir, PennTreebank, place)
    prepared = PennTreebank().load(raw_dir, cache_dir)
    card = prepared.card
    assert text_of(prepared, "train") == "the cat <unk> the <eos> <eos> a cat sat <eos>"
    assert text_of(prepared, "val") == "the <unk> <eos>"
    assert text_of(prepared, "test") == "a cat <eos> the <unk> <eos>"
    assert card.vocabulary == ["<eos>", "cat", "the", "<unk>", "a", "sat"]
    assert prepared.train.lengths.tolist() == [5, 1, 4]
    assert (card.kind, card.vocab_size, card.n_classes) == ("text", 6, 6)
    assert [card.splits[split]["class_counts"] for split in Dataset.split_names] == [[], [], []]
    assert "not the published sizes" in card.comparable


def test_a_word_that_nothing_stands_for_is_refused(raw_dir, cache_dir):
    folder = write_words(raw_dir, PennTreebank)
    (folder / "ptb.train.txt").write_text("the cat a\n")
    with pytest.raises(ValueError, match=r"ptb\.valid\.txt, line 1: 'dog' is not in the training"):
        PennTreebank().prepare(raw_dir, cache_dir)
    assert not list(cache_dir.glob("*"))


@pytest.mark.parametrize("split", Dataset.split_names)
def test_a_file_without_words_is_refused(raw_dir, cache_dir, split):
    (write_words(raw_dir, WikiText2) / WikiText2.file_names[split]).write_text(" \n\n")
    with pytest.raises(ValueError, match=r"wiki\..*\.tokens is empty: it has no words"):
        WikiText2().prepare(raw_dir, cache_dir)


def test_what_is_no_text_is_refused(raw_dir, cache_dir):
    (write_words(raw_dir, WikiText2) / "wiki.test.tokens").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"wiki\.test\.tokens is not UTF-8"):
        WikiText2().prepare(raw_dir, cache_dir)


def test_spaced_characters(raw_dir, cache_dir):
    write_words(raw_dir, PennTreebankCharacters)
    prepared = PennTreebankCharacters().load(raw_dir, cache_dir)
    assert text_of(prepared, "test") == "acat<eos>the<unk><eos>"


def test_one_file_is_cut_in_three_in_its_order(raw_dir, cache_dir):
    write_text(raw_dir, Shakespeare)
    prepared = Shakespeare(n_val=2, n_test=3).load(raw_dir, cache_dir)
    assert [text_of(prepared, split) for split in Dataset.split_names] == [
        "to be\nor not ",
        "to",
        " be",
    ]
    assert prepared.train.lengths.tolist() == [6, 7]
    assert prepared.card.vocabulary == [" ", "o", "t", "\n", "b", "e", "n", "r"]


def test_characters_that_training_does_not_have(raw_dir, cache_dir):
    write_text(raw_dir, Shakespeare, PLAYS + "?")
    with pytest.raises(ValueError, match=r"input\.txt: '\?' is not in the training part"):
        Shakespeare(n_val=2, n_test=3).prepare(raw_dir, cache_dir)


def test_bytes_have_all_values_and_lines_of_text8_are_cut(raw_dir, cache_dir):
    write_text(raw_dir, Enwik8, "aé\nb")
    prepared = Enwik8(n_val=1, n_test=1).load(raw_dir, cache_dir)
    assert (prepared.card.vocab_size, len(set(prepared.card.vocabulary))) == (256, 256)
    assert text_of(prepared, "train") == "a<0xc3><0xa9>"
    write_text(raw_dir, Text8, "ab" * 1_000)
    lengths = Text8(n_val=1, n_test=1).load(raw_dir, cache_dir).train.lengths
    assert lengths.tolist() == [1_000, 998]


def test_a_text_shorter_than_its_splits_is_refused(raw_dir, cache_dir):
    write_text(raw_dir, Shakespeare)
    message = r"has 18 characters, but must have more than n_val \+ n_test = 18"
    with pytest.raises(ValueError, match=message):
        Shakespeare(n_val=9, n_test=9).prepare(raw_dir, cache_dir)


@pytest.mark.parametrize(
    ("vocabulary", "found"), [(["a", "\n", "<eos>"], 2), (["a", "\n"], 1), (["b", "a"], 0)]
)
def test_what_ends_a_line(vocabulary, found):
    assert boundary(vocabulary) == found


def test_the_verbs_of_the_shell(raw_dir, cache_dir, capsys):
    write_words(raw_dir, PennTreebank)
    places = ["--raw_dir", str(raw_dir), "--cache_dir", str(cache_dir)]
    for verb in ("prepare", "stats", "verify"):
        main([verb, "ptb-lm", *places])
    main(["show", "ptb-lm", "--index", "2", *places])
    printed = capsys.readouterr().out
    assert "train: 3 lines of 1 to 5 steps, mean 3.3, 10 tokens" in printed
    assert "line 2\n4 tokens:\na cat sat <eos>" in printed
    assert "by class" not in printed


@pytest.mark.parametrize(
    ("name", "file", "vocab_size"),
    [
        ("ptb-lm", "simple-examples/data/ptb.train.txt", 10_000),
        ("ptb-char-lm", "simple-examples/data/ptb.char.train.txt", 49),
        ("wikitext2-lm", "wikitext-2/wiki.train.tokens", 33_278),
        ("shakespeare-lm", "tinyshakespeare/input.txt", 65),
    ],
)
def test_the_real_texts_have_the_published_tokens(real_data, cache_dir, name, file, vocab_size):
    real_file(real_data / file)
    kind = DATASETS[name]
    prepared = kind().load(real_data, cache_dir)
    sizes = {split: len(getattr(prepared, split).values) for split in Dataset.split_names}
    assert sizes == kind.published
    assert (prepared.card.vocab_size, prepared.card.comparable) == (vocab_size, kind.compares)
    assert len(np.unique(prepared.train.values)) == vocab_size
